"""Compare annotations with the classes and heads of a config before a run, for MMDetection and MMSegmentation."""

from __future__ import annotations

import difflib
import os
import os.path as osp
import re
from typing import Any, List, Tuple

import numpy as np
from mmengine.config import Config

from mmnfn.datasets.loading import LoadImageFromFile, LoadLabelMap

from .cfg_options import LOADERS, is_first_of_machine, walk, walk_dicts


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
    """Check folders of images and label maps against classes and heads; the first process of each machine does.

    Ten label maps of each dataset are read; :class:`~mmnfn.datasets.LoadLabelMap` checks the others when they are used.
    """
    if not is_first_of_machine():
        return
    from mmseg.datasets import BaseSegDataset
    from mmseg.registry import DATASETS

    found = []
    for key, node in (item for name in LOADERS for item in walk_dicts(cfg.get(name), name)):
        kind = DATASETS.get(node['type']) if isinstance(node.get('type'), str) else node.get('type')
        if isinstance(kind, type) and issubclass(kind, BaseSegDataset):
            names = _class_names(key, node, kind)
            _check_segmentation_heads(cfg, key, names)
            found.append((key, node, names, len(kind.METAINFO.get('classes') or names)))
    for key, _, names, _ in found:
        for label, pair in enumerate(zip(names, found[0][2])):
            if pair[0] != pair[1]:
                raise ValueError(
                    f'label {label} is {pair[1]!r} in {found[0][0]}, and {pair[0]!r} in {key}. Give both the same '
                    'metainfo.classes.'
                )
    for key, node, _, num_classes in found:
        if key.split('.')[0] in loaders and not node.get('backend_args'):
            _check_label_maps(key, node, DATASETS.build({**node, 'pipeline': [], 'lazy_init': True}), num_classes)


def _class_names(key: str, node: dict, kind: type) -> List[str]:
    """Classes of a dataset of MMSegmentation, label 0 first."""
    names, own = kind._load_metainfo(node.get('metainfo')).get('classes'), kind.METAINFO.get('classes')
    if isinstance(names, str) or not names:
        raise ValueError(f'{key}.metainfo.classes is {names!r}; give a list of names, or a file with one a line.')
    unknown = [name for name in names if own and name not in own]
    if unknown:
        near = difflib.get_close_matches(unknown[0], own, 1)
        raise ValueError(
            f'{key}.metainfo.classes: {kind.__name__} has no class {unknown[0]!r}'
            f'{f"; is {near[0]!r} meant?" if near else "."} Its classes are those of the label maps.'
        )
    return list(names)


def _check_segmentation_heads(cfg: Config, key: str, names: List[str]) -> None:
    """Compare each head's number of classes with those of a dataset."""
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.registry import MODELS

    for place, head in walk(cfg.get('model'), 'model'):
        if not re.search(r'head(\.\d+)?$', place) or 'num_classes' not in head:
            continue
        number, out = head['num_classes'], head.get('out_channels')
        if number != len(names):
            raise ValueError(f'{place}.num_classes is {number}, and {key} has {len(names)} classes. Set it to that.')
        kind = MODELS.get(head.get('type', ''))  # heads of other kinds call their features out_channels
        if kind and issubclass(kind, BaseDecodeHead) and out not in (None, number) and (out, number) != (1, 2):
            raise ValueError(
                f'{place}.out_channels is {out}, and {key} has {number} classes. Leave it out; 1 is for two classes.'
            )


def _check_label_maps(key: str, node: dict, dataset: Any, num_classes: int) -> None:
    """Look for the files of a dataset, and read some of them."""
    for place, step in walk(node.get('pipeline'), f'{key}.pipeline'):
        if step.get('type') == 'mmnfn.LoadLabelMap' and step['num_classes'] != num_classes:
            raise ValueError(
                f'{place}.num_classes is {step["num_classes"]}, and the label maps of {key} have {num_classes} '
                'classes. Set it to that.'
            )
    folder, suffix = dataset.data_prefix['img_path'], dataset.img_suffix
    if not osp.isdir(folder):
        raise FileNotFoundError(f'{key}.data_prefix.img_path: there is no folder {folder!r}. Put the images there.')
    samples = dataset.load_data_list()
    if not samples and osp.isfile(dataset.ann_file):
        raise ValueError(f'{key}.ann_file: {dataset.ann_file} names no image.')
    if not samples:
        others = sorted({osp.splitext(name)[1] for name in os.listdir(folder)})[:5]
        raise ValueError(
            f'{key}: no file in {folder} ends in {suffix!r}; found {", ".join(filter(None, others)) or "nothing"}. Set '
            'img_suffix, or data_prefix.img_path.'
        )
    for name in ('img_path', 'seg_map_path'):
        paths = [sample[name] for sample in samples if name in sample]
        there = {path: set(os.listdir(path) if osp.isdir(path) else ()) for path in set(map(osp.dirname, paths))}
        missing = [path for path in paths if osp.basename(path) not in there[osp.dirname(path)]]
        if missing:
            raise FileNotFoundError(
                f'{key}: {len(missing)} of {len(paths)} files are missing, {missing[0]} first. Check data_prefix, '
                f'img_suffix ({suffix}) and seg_map_suffix ({dataset.seg_map_suffix}).'
            )
    load_image, load_map, seen = LoadImageFromFile(), LoadLabelMap(num_classes), set()
    for sample in samples[:: -(-len(samples) // 10)]:
        if 'seg_map_path' not in sample:  # of a test set without labels
            return
        seen.update(np.unique(load_map(load_image(dict(sample, label_map=None)))['gt_seg_map']).tolist())
    if not dataset.reduce_zero_label and seen <= {0, 255} and 255 in seen and num_classes > 1:
        raise ValueError(
            f'{key}: the label maps hold 0 and 255 alone, {sample["seg_map_path"]} among them, and 255 is unlabelled. '
            'Write the numbers of the classes: 1 for 255 in a mask.'
        )
