"""What is learned: image tower, fMRI tower, fusion, and NeuroFusionNet made of them."""

from .backbone_features import BackboneFeatures
from .data_preprocessor import NFNDataPreprocessor
from .fmri_encoder import FMRIEncoder, FMRIFeatures
from .fusion import FusedFeatures, MaskedROIFusion
from .image_head import ImageFeatures, ROIImageHead
from .neurofusionnet import NeuroFusionNet
from .timeformer import MultiScaleFMRITimeformer
from .voxel_embedding import VoxelEmbedding

__all__ = [
    'BackboneFeatures',
    'FMRIEncoder',
    'FMRIFeatures',
    'FusedFeatures',
    'ImageFeatures',
    'MaskedROIFusion',
    'MultiScaleFMRITimeformer',
    'NFNDataPreprocessor',
    'NeuroFusionNet',
    'ROIImageHead',
    'VoxelEmbedding',
]
