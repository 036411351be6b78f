"""Procedural scenes with instance masks, a semantic map and captions."""

from __future__ import annotations

from typing import List, NamedTuple, Tuple

import cv2
import numpy as np

from .things import DRAW_THING, Painter

THING_CLASSES = ('face', 'body', 'word', 'animal', 'car', 'chair', 'cup', 'ball', 'tree', 'house')
STUFF_CLASSES = ('sky', 'grass', 'water', 'road', 'sand', 'wall', 'floor')
CLASSES = THING_CLASSES + STUFF_CLASSES

# Place: bands of stuff from top to bottom, and how likely each thing is there.
PLACES = {
    'beach': (('sky', 'water', 'sand'), dict(face=1, body=4, word=0.5, animal=1, ball=3, chair=1, tree=1)),
    'field': (('sky', 'grass'), dict(face=1, body=2, word=0.5, animal=4, ball=1, tree=4, house=1.5)),
    'street': (('sky', 'road'), dict(face=1, body=3, word=3, animal=0.5, car=4, tree=1, house=3)),
    'room': (('wall', 'floor'), dict(face=2, body=2, word=2, animal=1, chair=3, cup=3, ball=1)),
}
# Height of a thing that stands at the front of the scene, as a fraction of the picture.
HEIGHTS = dict(
    face=0.42, body=0.62, word=0.28, animal=0.34, car=0.34, chair=0.42, cup=0.26, ball=0.24, tree=0.7, house=0.7
)


class Instance(NamedTuple):
    """One visible thing: its class name and its (S, S) bool mask."""

    name: str
    mask: np.ndarray


class Scene(NamedTuple):
    """A picture and everything that is known about it.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        semantic: (S, S) uint8 indices into :data:`CLASSES`.
        instances: The visible things.
        place: Name of the place, a key of :data:`PLACES`.
        captions: Five sentences.
    """

    image: np.ndarray
    semantic: np.ndarray
    instances: List[Instance]
    place: str
    captions: List[str]


def _noise(rng: np.random.Generator, size: int, cells: Tuple[int, int]) -> np.ndarray:
    """Smooth noise in about [-1, 1] of shape (size, size) with ``cells`` = (rows, columns) bumps."""
    coarse = rng.uniform(-1, 1, (max(2, cells[0]), max(2, cells[1]))).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _texture(name: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size, 3) float32 texture of one kind of stuff, 0…255."""
    rows = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    columns = np.linspace(0, 1, size, dtype=np.float32)[None, :]
    if name == 'sky':
        colour, pattern = (120, 165, 225), 0.15 * _noise(rng, size, (5, 3)) + 0.25 * (rows - 0.3)
    elif name == 'grass':
        colour, pattern = (90, 150, 70), 0.28 * _noise(rng, size, (size // 24, size // 5))
    elif name == 'water':
        ripples = np.sin(2 * np.pi * rng.uniform(14, 26) * rows + 1.5 * _noise(rng, size, (6, 4)))
        colour, pattern = (60, 110, 160), 0.18 * ripples
    elif name == 'road':
        colour, pattern = (110, 110, 115), 0.12 * _noise(rng, size, (size // 6, size // 6))
    elif name == 'sand':
        colour, pattern = (205, 180, 130), 0.14 * _noise(rng, size, (size // 4, size // 4))
    elif name == 'wall':
        stripes = np.sign(np.sin(2 * np.pi * rng.uniform(5, 12) * columns + 0 * rows))
        colour, pattern = (190, 175, 160), 0.1 * stripes + 0.08 * _noise(rng, size, (4, 4))
    else:  # floor
        boards = np.sign(np.sin(2 * np.pi * rng.uniform(4, 9) * (columns + rng.uniform(-1, 1) * rows)))
        colour, pattern = (150, 110, 80), 0.14 * boards + 0.08 * _noise(rng, size, (size // 16, 6))
    tint = np.asarray(colour, np.float32) * rng.uniform(0.75, 1.2) + rng.uniform(-25, 25, 3)
    return tint.astype(np.float32) * (1 + pattern[..., None]).astype(np.float32)


def _background(bands: Tuple[str, ...], rng: np.random.Generator, size: int) -> Tuple[np.ndarray, np.ndarray, float]:
    """Picture, semantic map and the height (0…1) at which things begin to stand; textures have half the resolution."""
    half = (size + 1) // 2
    image = np.empty((half, half, 3), np.float32)
    semantic = np.empty((size, size), np.uint8)
    edges = [0.0, rng.uniform(0.3, 0.55)]
    if len(bands) == 3:
        edges.append(edges[1] + rng.uniform(0.12, 0.25))
    edges.append(1.0)
    slope = rng.uniform(-0.06, 0.06)

    def height(pixels: int) -> np.ndarray:
        axis = np.arange(pixels, dtype=np.float32) / pixels
        return axis[:, None] + slope * (axis[None, :] - 0.5)

    coarse, fine = height(half), height(size)
    for name, top in zip(bands, edges[:-1]):  # each band covers all below its upper edge
        where = coarse >= (top if top else -1)
        np.copyto(image, _texture(name, rng, half), where=where[..., None])
        semantic[fine >= (top if top else -1)] = CLASSES.index(name)
    image = cv2.resize(np.clip(image, 0, 255).astype(np.uint8), (size, size), interpolation=cv2.INTER_LINEAR)
    return image, semantic, edges[-2]


def _captions(place: str, names: List[str], rng: np.random.Generator) -> List[str]:
    """Five captions that tell place and things in different words."""
    counts = [(name, names.count(name)) for name in dict.fromkeys(names)]
    parts = [f'a {name}' if n == 1 else f'{n} {name}s' for name, n in counts]
    where = {'room': 'in a room', 'street': 'on a street', 'beach': 'on a beach', 'field': 'in a field'}[place]
    patterns = ('{0} {1}', 'a picture of {0} {1}', 'there is {0} {1}', '{1} one can see {0}', 'a {2} with {0}')
    captions = []
    for pattern in patterns:
        order = list(rng.permutation(len(parts)))
        things = ' and '.join(parts[i] for i in order) if parts else 'nothing'
        captions.append(pattern.format(things, where, place).capitalize() + '.')
    return captions


def render_scene(rng: np.random.Generator, size: int = 425) -> Scene:
    """Draw one scene.

    Args:
        rng: Source of all randomness: the same state gives the same scene.
        size: Side of the square picture in pixels.

    Returns:
        The scene. Things that are hidden for more than three quarters, or smaller than 0.15% of the picture, do not
        count as instances and are painted over in the semantic map all the same.
    """
    place = list(PLACES)[rng.integers(len(PLACES))]
    bands, weights = PLACES[place]
    image, semantic, ground = _background(bands, rng, size)
    painter = Painter(image, rng)

    number = int(rng.integers(1, 6))
    probability = np.asarray(list(weights.values()), float)
    names = rng.choice(list(weights), number, p=probability / probability.sum())
    feet = np.sort(rng.uniform(ground + 0.08, 1.05, number))  # far things first
    full_area = {}
    for index, (name, foot) in enumerate(zip(names, feet), 1):
        depth = 0.45 + 0.55 * (foot - ground) / (1.05 - ground)
        height = HEIGHTS[name] * depth * rng.uniform(0.75, 1.25) * size
        if name in ('face', 'word', 'ball'):  # these need not stand on the ground
            foot = rng.uniform(0.3, 1.0)
        painter.begin(index)
        DRAW_THING[name](painter, rng.uniform(0.08, 0.92) * size, foot * size, height)
        full_area[index] = painter.painted_area
    if names.size and rng.random() < 0.5:  # a body often has a face
        for index in [i + 1 for i, name in enumerate(names) if name == 'body'][:1]:
            ys, xs = np.nonzero(painter.ids == index)
            if ys.size > 0.004 * size**2:
                top, centre, height = ys.min(), float(np.median(xs)), np.ptp(ys) + 1
                names = np.append(names, 'face')
                painter.begin(len(names))
                DRAW_THING['face'](painter, centre, top + 0.12 * height, 0.26 * height)
                full_area[len(names)] = painter.painted_area

    instances = []
    for index, name in enumerate(names, 1):
        mask = painter.ids == index
        semantic[mask] = CLASSES.index(str(name))
        if mask.sum() > max(0.0015 * size**2, 0.25 * full_area[index]):
            instances.append(Instance(str(name), mask))
    light = cv2.merge([(rng.uniform(0.75, 1.2) * (1 + 0.12 * _noise(rng, size, (2, 2)))).astype(np.float32)] * 3)
    tile = rng.normal(0, 4, (64, 64)).astype(np.float32)
    grain = cv2.merge([np.tile(tile, (size // 64 + 1, size // 64 + 1))[:size, :size]] * 3)
    image = cv2.multiply(image, light, dtype=cv2.CV_32F)
    image = np.clip(cv2.add(image, grain), 0, 255).astype(np.uint8)
    return Scene(image, semantic, instances, place, _captions(place, [i.name for i in instances], rng))
