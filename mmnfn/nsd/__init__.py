"""The NSD release and what is made of it: ROI stores, image stores and numpy arrays. No PyTorch, no OpenMMLab."""

from .images import StimulusImages
from .preparation import prepare
from .release import ROI_CLASSES, NSDLayout
from .store import ROIStore

__all__ = ['NSDLayout', 'ROIStore', 'ROI_CLASSES', 'StimulusImages', 'prepare']
