# UPerNet, ConvNeXt-S with random weights, 160k iterations, ADE20K at 512 pixels.
_base_ = '../_base_/downstream/upernet_convnext-s.py'
