"""Procedural scenes with instance masks, a semantic map and captions, and the things in them."""

from __future__ import annotations

import string
from typing import List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np

THING_CLASSES = ('face', 'body', 'word', 'animal', 'car', 'chair', 'cup', 'ball', 'tree', 'house')
STUFF_CLASSES = ('sky', 'grass', 'water', 'road', 'sand', 'wall', 'floor')
CLASSES = THING_CLASSES + STUFF_CLASSES

# Place → bands of stuff from top to bottom, and relative frequencies of things.
PLACES = {
    'beach': (('sky', 'water', 'sand'), dict(face=1, body=4, word=0.5, animal=1, ball=3, chair=1, tree=1)),
    'field': (('sky', 'grass'), dict(face=1, body=2, word=0.5, animal=4, ball=1, tree=4, house=1.5)),
    'street': (('sky', 'road'), dict(face=1, body=3, word=3, animal=0.5, car=4, tree=1, house=3)),
    'room': (('wall', 'floor'), dict(face=2, body=2, word=2, animal=1, chair=3, cup=3, ball=1)),
}
# Height of a thing at the front of the scene, as a fraction of the image.
HEIGHTS = dict(
    face=0.42, body=0.62, word=0.28, animal=0.34, car=0.34, chair=0.42, cup=0.26, ball=0.24, tree=0.7, house=0.7
)


class Instance(NamedTuple):
    """Hold a visible thing: its class name and its mask (S, S) bool."""

    name: str
    mask: np.ndarray


class Scene(NamedTuple):
    """Hold an image and everything known about it.

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
    """Draw smooth noise (size, size) in about [-1, 1] with ``cells`` = (rows, columns) bumps."""
    coarse = rng.uniform(-1, 1, (max(2, cells[0]), max(2, cells[1]))).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _texture(name: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw the texture of one kind of stuff, (size, size, 3) float32 in 0…255."""
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
    """Draw image, semantic map and the height (0…1) where things begin to stand; textures have half the resolution."""
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
    for name, top in zip(bands, edges[:-1]):  # each band covers everything below its upper edge
        where = coarse >= (top if top else -1)
        np.copyto(image, _texture(name, rng, half), where=where[..., None])
        semantic[fine >= (top if top else -1)] = CLASSES.index(name)
    image = cv2.resize(np.clip(image, 0, 255).astype(np.uint8), (size, size), interpolation=cv2.INTER_LINEAR)
    return image, semantic, edges[-2]


def _captions(place: str, names: List[str], rng: np.random.Generator) -> List[str]:
    """Write five captions that name place and things in different words."""
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
        size: Side of the square image in pixels.

    Returns:
        The scene. Things that are more than three quarters hidden, or cover less than 0.15% of the image, are in the
        semantic map but do not count as instances.
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
        painter.begin(index, rng.uniform(0.08, 0.92) * size, foot * size, height)
        DRAW_THING[name](painter)
        full_area[index] = painter.painted_area
    if names.size and rng.random() < 0.5:  # a body often has a face
        for index in [i + 1 for i, name in enumerate(names) if name == 'body'][:1]:
            ys, xs = np.nonzero(painter.ids == index)
            if ys.size > 0.004 * size**2:
                top, centre, height = ys.min(), float(np.median(xs)), np.ptp(ys) + 1
                names = np.append(names, 'face')
                painter.begin(len(names), centre, top + 0.12 * height, 0.26 * height)
                DRAW_THING['face'](painter)
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


Colour = Tuple[float, float, float]
WHITE, BLACK = (245.0, 245.0, 245.0), (25.0, 25.0, 25.0)


class Painter:
    """Paint into a uint8 image (S, S, 3) and, with the current number, into an instance map ``ids`` (S, S).

    Coordinates are those of the current thing: x to the right of its middle and y above its foot, in its heights.
    """

    def __init__(self, image: np.ndarray, rng: np.random.Generator):
        self.image = image
        self.rng = rng
        self.ids = np.zeros(image.shape[:2], np.int32)

    def begin(self, number: int, x: float, foot: float, height: float) -> None:
        """Begin instance ``number``, whose middle, foot and height are given in pixels."""
        self.number, self.x, self.foot, self.height = number, x, foot, height

    @property
    def painted_area(self) -> int:
        """Count the visible pixels of the current instance."""
        return int((self.ids == self.number).sum())

    def colour(self, low: float = 30, high: float = 235) -> Colour:
        """Draw a random colour."""
        return tuple(float(c) for c in self.rng.uniform(low, high, 3))

    def skin(self) -> Colour:
        """Draw a random skin colour."""
        tone = self.rng.uniform(0.35, 1.0)
        return (235 * tone, 190 * tone + self.rng.uniform(-8, 8), 160 * tone + self.rng.uniform(-10, 10))

    def side(self) -> int:
        """Draw left (−1) or right (1)."""
        return self.rng.choice([-1, 1])

    def pixel(self, x: float, y: float) -> Tuple[int, int]:
        """Convert a point to pixels."""
        return int(round(self.x + x * self.height)), int(round(self.foot - y * self.height))

    def pixels(self, length: float) -> int:
        """Convert a length to pixels, at least one."""
        return max(1, int(round(length * self.height)))

    def polygon(self, points: Sequence[Tuple[float, float]], colour: Colour) -> None:
        """Fill a polygon given by its corners (x, y)."""
        corners = np.asarray([self.pixel(*point) for point in points], np.int32)[None]
        cv2.fillPoly(self.image, corners, colour, cv2.LINE_AA)
        cv2.fillPoly(self.ids, corners, self.number)

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Fill an upright rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, angle: float = 0.0) -> None:
        """Fill an ellipse with centre (x, y) and half axes rx, ry."""
        centre, axes = self.pixel(x, y), (self.pixels(rx), self.pixels(ry))
        cv2.ellipse(self.image, centre, axes, angle, 0, 360, colour, -1, cv2.LINE_AA)
        cv2.ellipse(self.ids, centre, axes, angle, 0, 360, self.number, -1)

    def line(self, x0: float, y0: float, x1: float, y1: float, width: float, colour: Colour) -> None:
        """Draw a thick line."""
        ends, width = (self.pixel(x0, y0), self.pixel(x1, y1)), self.pixels(width)
        cv2.line(self.image, *ends, colour, width, cv2.LINE_AA)
        cv2.line(self.ids, *ends, self.number, width)


def _shade(colour: Colour, factor: float) -> Colour:
    return tuple(min(255.0, factor * c) for c in colour)


def _face(p: Painter) -> None:
    skin = p.skin()
    p.ellipse(0, 0.5, 0.38, 0.5, skin)
    p.ellipse(0, 0.83, 0.361, 0.2, p.colour(10, 120))  # hair
    for side in (-1, 1):
        p.ellipse(side * 0.16, 0.54, 0.07, 0.045, WHITE)
        p.ellipse(side * 0.16, 0.54, 0.035, 0.04, (30.0, 25.0, 25.0))
    p.line(0, 0.5, -0.02, 0.37, 0.03, _shade(skin, 0.75))
    p.line(-0.13, 0.25, 0.13, 0.25, 0.05, (150.0, 50.0, 55.0))


def _body(p: Painter) -> None:
    shirt, trousers, skin = p.colour(), p.colour(20, 150), p.skin()
    lean = p.rng.uniform(-0.06, 0.06)
    for side in (-1, 1):
        p.line(side * 0.05, 0.48, side * p.rng.uniform(0.05, 0.18), 0, 0.1, trousers)
        hand = side * p.rng.uniform(0.16, 0.34), p.rng.uniform(0.4, 0.85)
        p.line(side * 0.13 + lean, 0.8, *hand, 0.07, skin)
    p.polygon([(-0.15 + lean, 0.85), (0.15 + lean, 0.85), (0.11, 0.42), (-0.11, 0.42)], shirt)
    p.ellipse(lean, 0.93, 0.075, 0.085, skin)


def _word(p: Painter) -> None:
    text = ''.join(p.rng.choice(list(string.ascii_uppercase), int(p.rng.integers(3, 7))))
    width, font = (0.55 + 0.42 * len(text)) * 0.55, cv2.FONT_HERSHEY_DUPLEX
    dark_on_light = p.rng.random() < 0.6
    board, ink = p.colour(180, 250), p.colour(0, 70)
    if not dark_on_light:
        board, ink = ink, board
    p.rectangle(-width / 2, 0.62, width / 2, 0, board)
    scale = 0.62 * p.height / 38
    (tw, _), _ = cv2.getTextSize(text, font, scale, 1)
    scale *= min(1.0, 0.9 * width * p.height / max(tw, 1))
    (tw, th), _ = cv2.getTextSize(text, font, scale, 1)
    origin = (int(p.x - tw / 2), int(p.foot - 0.31 * p.height + th / 2))
    cv2.putText(p.image, text, origin, font, scale, ink, max(1, int(0.05 * p.height)), cv2.LINE_AA)


def _animal(p: Painter) -> None:
    coat, side = p.colour(40, 220), p.side()
    for x in (-0.42, -0.3, 0.3, 0.42):
        p.line(x, 0.5, x, 0, 0.09, _shade(coat, 0.8))
    p.ellipse(0, 0.55, 0.58, 0.25, coat)
    p.line(-side * 0.5, 0.6, -side * 0.78, p.rng.uniform(0.5, 0.95), 0.06, coat)
    p.ellipse(side * 0.66, 0.76, 0.2, 0.17, coat)
    p.polygon([(side * 0.55, 0.85), (side * 0.6, 1.02), (side * 0.7, 0.88)], coat)
    spots = p.colour(10, 90)
    for _ in range(int(p.rng.integers(0, 6))):
        p.ellipse(p.rng.uniform(-0.4, 0.4), p.rng.uniform(0.45, 0.65), 0.07, 0.06, spots)


def _car(p: Painter) -> None:
    paint = p.colour()
    p.polygon([(-0.5, 0.55), (-0.32, 0.95), (0.35, 0.95), (0.58, 0.55)], _shade(paint, 0.8))
    p.polygon([(-0.38, 0.58), (-0.26, 0.87), (0.29, 0.87), (0.44, 0.58)], (170.0, 200.0, 220.0))
    p.rectangle(-1, 0.6, 1, 0.15, paint)
    for x in (-0.6, 0.6):
        p.ellipse(x, 0.18, 0.2, 0.2, BLACK)
        p.ellipse(x, 0.18, 0.09, 0.09, (190.0, 190.0, 190.0))


def _chair(p: Painter) -> None:
    wood, side = p.colour(50, 200), p.side()
    for x in (-0.25, 0.25):
        p.line(x, 0.45, x, 0, 0.07, wood)
        p.line(x + 0.1, 0.45, x + 0.1, 0.08, 0.06, wood)
    p.polygon([(-0.3, 0.4), (0.28, 0.4), (0.4, 0.54), (-0.18, 0.54)], _shade(wood, 1.15))
    for k in range(4):
        p.line(side * 0.28, 0.5 + 0.14 * k, side * 0.36, 0.5 + 0.14 * k, 0.1, wood)
    p.line(side * 0.3, 0.45, side * 0.34, 1, 0.07, wood)


def _cup(p: Painter) -> None:
    glaze, side = p.colour(), p.side()
    p.ellipse(side * 0.42, 0.5, 0.24, 0.26, glaze)
    p.polygon([(-0.42, 1), (0.42, 1), (0.3, 0), (-0.3, 0)], glaze)
    p.ellipse(0, 0.97, 0.4, 0.1, _shade(glaze, 0.45))


def _ball(p: Painter) -> None:
    first, second = p.colour(), p.colour()
    p.ellipse(0, 0.5, 0.5, 0.5, first)
    p.ellipse(0, 0.5, 0.46, 0.15, second, p.rng.uniform(0, 180))
    p.ellipse(-0.175, 0.7, 0.09, 0.07, (250.0, 250.0, 250.0))


def _tree(p: Painter) -> None:
    p.line(0, 0, p.rng.uniform(-0.04, 0.04), 0.5, 0.09, (95.0, 65.0, 40.0))
    leaf = (p.rng.uniform(30, 150), p.rng.uniform(90, 170), p.rng.uniform(20, 90))
    for _ in range(9):
        shade = p.rng.uniform(0.75, 1.2)
        place = p.rng.uniform(-0.2, 0.2), p.rng.uniform(0.48, 0.9)
        p.ellipse(*place, p.rng.uniform(0.1, 0.18), p.rng.uniform(0.08, 0.15), _shade(leaf, shade))


def _house(p: Painter) -> None:
    wall, roof, w = p.colour(90, 240), p.colour(40, 150), p.rng.uniform(0.38, 0.6)
    p.rectangle(-w, 0.62, w, 0, wall)
    p.polygon([(-1.12 * w, 0.6), (1.12 * w, 0.6), (0, 1)], roof)
    pane = p.colour(20, 110)
    for y in (0.5, 0.27):
        for x in (-0.6, -0.05, 0.5):
            if p.rng.random() < 0.85:
                p.rectangle((x - 0.1) * w, y + 0.06, (x + 0.2) * w, y - 0.07, pane)
    p.rectangle(-0.12 * w, 0.2, 0.16 * w, 0, _shade(roof, 0.6))


DRAW_THING = dict(
    face=_face,
    body=_body,
    word=_word,
    animal=_animal,
    car=_car,
    chair=_chair,
    cup=_cup,
    ball=_ball,
    tree=_tree,
    house=_house,
)
