"""Arguments that the tools for pictures share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import List

import numpy as np
import torch
from torch import nn

from mmnfn.apis import get_model
from mmnfn.apis.retriever import centre_square, config_image_size, read_image
from mmnfn.nsd import StimulusImages


def new_parser(description: str) -> argparse.ArgumentParser:
    """Parser of a tool that writes a picture to ``--out``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True, help='picture to write, e.g. .png or .pdf')
    return parser


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """Which images: files, or 73k ids of a file of NSD's pictures."""
    parser.add_argument('images', nargs='*', metavar='IMAGE', help='image files')
    parser.add_argument(
        '--store', metavar='IMAGES.h5', help='pictures of NSD instead: images_224.h5 or nsd_stimuli.hdf5'
    )
    parser.add_argument('--image-size', type=int, metavar='S', help="side in pixels; default that of the config's data")
    parser.add_argument('--device', default='cpu', help='default cpu')
    parser.add_argument('--ids', type=int, nargs='+', default=[], metavar='ID', help='their 0-based 73k ids')


def loaded_model(config: str, checkpoint: str, device: str) -> nn.Module:
    """:func:`mmnfn.apis.get_model` whose complaints about the device name it."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'--device: {device!r} cannot be used: {str(error).splitlines()[0]}') from error
    return get_model(config, checkpoint, device)


def chosen_images(args: argparse.Namespace, model: nn.Module) -> List[np.ndarray]:
    """The images, (S, S, 3) uint8 RGB of the size that the model was trained with.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: There are no images, or something is no image.
    """
    if bool(args.store) != bool(args.ids) or bool(args.images) == bool(args.store):
        raise ValueError('IMAGE: give image files, or --store with --ids.')
    found = list(args.images)
    if args.store:
        store = StimulusImages(args.store)
        try:
            found = [store[number] for number in args.ids]
        except KeyError as error:
            raise ValueError(f'--ids: {error.args[0]}') from error
    size = args.image_size
    if size is None:
        try:
            size = config_image_size(model.cfg)
        except ValueError as error:
            raise ValueError('--image-size: the config does not tell the size of its pictures: give it.') from error
    return [centre_square(read_image(image), size) for image in found]
