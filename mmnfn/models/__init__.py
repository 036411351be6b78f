"""Models: image tower, fMRI tower, their fusion, NeuroFusionNet, and the caption baseline."""

from .backbone_features import BackboneFeatures
from .caption_clip import CaptionCLIP, CLIPTextEncoder, ContextHead
from .data_preprocessor import NFNDataPreprocessor
from .encoding_head import EncodingHead
from .fmri_encoder import FMRIEncoder, FMRIFeatures
from .fusion import FusedFeatures, MaskedROIFusion
from .image_head import ImageFeatures, ROIImageHead
from .low_level import LowLevelFeatures
from .neurofusionnet import NeuroFusionNet
from .timeformer import MultiScaleFMRITimeformer
from .voxel_embedding import VoxelEmbedding

__all__ = [
    'BackboneFeatures',
    'CLIPTextEncoder',
    'CaptionCLIP',
    'ContextHead',
    'EncodingHead',
    'FMRIEncoder',
    'FMRIFeatures',
    'FusedFeatures',
    'ImageFeatures',
    'LowLevelFeatures',
    'MaskedROIFusion',
    'MultiScaleFMRITimeformer',
    'NFNDataPreprocessor',
    'NeuroFusionNet',
    'ROIImageHead',
    'VoxelEmbedding',
]
