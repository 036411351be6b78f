"""Compare annotations with the classes and heads of a config before a run, for MMDetection and MMSegmentation."""

from __future__ import annotations

from typing import Tuple

from mmengine.config import Config


def check_annotations(cfg: Config, loaders: Tuple[str, ...]) -> None:
    """Check that annotation files, classes and heads mean the same by a label.

    Args:
        cfg: The config of the run.
        loaders: The dataloaders that the run uses, with their evaluators.

    Raises:
        ValueError: They do not, or no sample is left.
    """
    scope = cfg.get('default_scope')
    if scope == 'mmdet':
        check_detection(cfg, loaders)
    elif scope == 'mmseg':
        check_segmentation(cfg, loaders)


def check_detection(cfg: Config, loaders: Tuple[str, ...]) -> None:
    """Check COCO annotation files against classes and heads."""


def check_segmentation(cfg: Config, loaders: Tuple[str, ...]) -> None:
    """Check folders of images and label maps against classes and heads."""
