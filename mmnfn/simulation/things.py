"""Drawing the things of a procedural scene: each paints a picture and an instance map at once."""

from __future__ import annotations

import string
from typing import Sequence, Tuple

import cv2
import numpy as np

Colour = Tuple[float, float, float]


class Painter:
    """Paints into a uint8 picture (S, S, 3) and, with the current number, into an instance map ``ids`` (S, S)."""

    def __init__(self, image: np.ndarray, rng: np.random.Generator):
        self.image = image
        self.rng = rng
        self.ids = np.zeros(image.shape[:2], np.int32)
        self._number = 0

    def begin(self, number: int) -> None:
        """All that is painted from now on belongs to instance ``number``."""
        self._number = number

    @property
    def painted_area(self) -> int:
        """Pixels that carry the current number."""
        return int((self.ids == self._number).sum())

    def colour(self, low: float = 30, high: float = 235) -> Colour:
        """A random colour."""
        return tuple(float(c) for c in self.rng.uniform(low, high, 3))

    def skin(self) -> Colour:
        """A random skin colour."""
        tone = self.rng.uniform(0.35, 1.0)
        return (235 * tone, 190 * tone + self.rng.uniform(-8, 8), 160 * tone + self.rng.uniform(-10, 10))

    def polygon(self, points: Sequence[Tuple[float, float]], colour: Colour) -> None:
        """Fill a polygon given by (x, y) corners."""
        corners = np.round(np.asarray(points)).astype(np.int32)[None]
        cv2.fillPoly(self.image, corners, colour, cv2.LINE_AA)
        cv2.fillPoly(self.ids, corners, self._number)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Fill an upright rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, angle: float = 0.0) -> None:
        """Fill an ellipse with centre (x, y) and half axes rx, ry."""
        centre, axes = (int(round(x)), int(round(y))), (max(1, int(round(rx))), max(1, int(round(ry))))
        cv2.ellipse(self.image, centre, axes, angle, 0, 360, colour, -1, cv2.LINE_AA)
        cv2.ellipse(self.ids, centre, axes, angle, 0, 360, self._number, -1)

    def line(self, x0: float, y0: float, x1: float, y1: float, width: float, colour: Colour) -> None:
        """A thick line."""
        ends = (int(round(x0)), int(round(y0))), (int(round(x1)), int(round(y1)))
        thickness = max(1, int(round(width)))
        cv2.line(self.image, *ends, colour, thickness, cv2.LINE_AA)
        cv2.line(self.ids, *ends, self._number, thickness)


def _face(p: Painter, x: float, foot: float, h: float) -> None:
    y, rx, ry = foot - h / 2, 0.38 * h, 0.5 * h
    skin, dark = p.skin(), (30.0, 25.0, 25.0)
    p.ellipse(x, y, rx, ry, skin)
    hair = p.colour(10, 120)
    p.ellipse(x, y - 0.33 * h, rx * 0.95, 0.2 * h, hair)
    for side in (-1, 1):
        p.ellipse(x + side * 0.16 * h, y - 0.04 * h, 0.07 * h, 0.045 * h, (245.0, 245.0, 245.0))
        p.ellipse(x + side * 0.16 * h, y - 0.04 * h, 0.035 * h, 0.04 * h, dark)
    p.line(x, y, x - 0.02 * h, y + 0.13 * h, 0.03 * h, tuple(0.75 * c for c in skin))
    p.line(x - 0.13 * h, y + 0.25 * h, x + 0.13 * h, y + 0.25 * h, 0.05 * h, (150.0, 50.0, 55.0))


def _body(p: Painter, x: float, foot: float, h: float) -> None:
    shirt, trousers, skin = p.colour(), p.colour(20, 150), p.skin()
    lean = p.rng.uniform(-0.06, 0.06) * h
    for side in (-1, 1):
        p.line(x + side * 0.05 * h, foot - 0.48 * h, x + side * p.rng.uniform(0.05, 0.18) * h, foot, 0.1 * h, trousers)
        hand = (x + side * p.rng.uniform(0.16, 0.34) * h, foot - p.rng.uniform(0.4, 0.85) * h)
        p.line(x + side * 0.13 * h + lean, foot - 0.8 * h, *hand, 0.07 * h, skin)
    p.polygon(
        [
            (x - 0.15 * h + lean, foot - 0.85 * h),
            (x + 0.15 * h + lean, foot - 0.85 * h),
            (x + 0.11 * h, foot - 0.42 * h),
            (x - 0.11 * h, foot - 0.42 * h),
        ],
        shirt,
    )
    p.ellipse(x + lean, foot - 0.93 * h, 0.075 * h, 0.085 * h, skin)


def _word(p: Painter, x: float, foot: float, h: float) -> None:
    text = ''.join(p.rng.choice(list(string.ascii_uppercase), int(p.rng.integers(3, 7))))
    width = (0.55 + 0.42 * len(text)) * h * 0.55
    dark_on_light = p.rng.random() < 0.6
    board, ink = p.colour(180, 250), p.colour(0, 70)
    if not dark_on_light:
        board, ink = ink, board
    p.rectangle(x - width / 2, foot - h * 0.62, x + width / 2, foot, board)
    scale = 0.62 * h / 38
    (tw, th), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, scale, 1)
    scale *= min(1.0, 0.9 * width / max(tw, 1))
    (tw, th), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, scale, 1)
    origin = (int(x - tw / 2), int(foot - 0.31 * h + th / 2))
    cv2.putText(p.image, text, origin, cv2.FONT_HERSHEY_DUPLEX, scale, ink, max(1, int(0.05 * h)), cv2.LINE_AA)


def _animal(p: Painter, x: float, foot: float, h: float) -> None:
    coat, side = p.colour(40, 220), p.rng.choice([-1, 1])
    for dx in (-0.42, -0.3, 0.3, 0.42):
        p.line(x + dx * h, foot - 0.5 * h, x + dx * h, foot, 0.09 * h, tuple(0.8 * c for c in coat))
    p.ellipse(x, foot - 0.55 * h, 0.58 * h, 0.25 * h, coat)
    p.line(x - side * 0.5 * h, foot - 0.6 * h, x - side * 0.78 * h, foot - p.rng.uniform(0.5, 0.95) * h, 0.06 * h, coat)
    p.ellipse(x + side * 0.66 * h, foot - 0.76 * h, 0.2 * h, 0.17 * h, coat)
    p.polygon(
        [
            (x + side * 0.55 * h, foot - 0.85 * h),
            (x + side * 0.6 * h, foot - 1.02 * h),
            (x + side * 0.7 * h, foot - 0.88 * h),
        ],
        coat,
    )
    spots = p.colour(10, 90)
    for _ in range(int(p.rng.integers(0, 6))):
        p.ellipse(x + p.rng.uniform(-0.4, 0.4) * h, foot - p.rng.uniform(0.45, 0.65) * h, 0.07 * h, 0.06 * h, spots)


def _car(p: Painter, x: float, foot: float, h: float) -> None:
    paint = p.colour()
    p.polygon(
        [
            (x - 0.5 * h, foot - 0.55 * h),
            (x - 0.32 * h, foot - 0.95 * h),
            (x + 0.35 * h, foot - 0.95 * h),
            (x + 0.58 * h, foot - 0.55 * h),
        ],
        tuple(0.8 * c for c in paint),
    )
    p.polygon(
        [
            (x - 0.38 * h, foot - 0.58 * h),
            (x - 0.26 * h, foot - 0.87 * h),
            (x + 0.29 * h, foot - 0.87 * h),
            (x + 0.44 * h, foot - 0.58 * h),
        ],
        (170.0, 200.0, 220.0),
    )
    p.rectangle(x - h, foot - 0.6 * h, x + h, foot - 0.15 * h, paint)
    for dx in (-0.6, 0.6):
        p.ellipse(x + dx * h, foot - 0.18 * h, 0.2 * h, 0.2 * h, (25.0, 25.0, 25.0))
        p.ellipse(x + dx * h, foot - 0.18 * h, 0.09 * h, 0.09 * h, (190.0, 190.0, 190.0))


def _chair(p: Painter, x: float, foot: float, h: float) -> None:
    wood, side = p.colour(50, 200), p.rng.choice([-1, 1])
    for dx in (-0.25, 0.25):
        p.line(x + dx * h, foot - 0.45 * h, x + dx * h, foot, 0.07 * h, wood)
        p.line(x + (dx + 0.1) * h, foot - 0.45 * h, x + (dx + 0.1) * h, foot - 0.08 * h, 0.06 * h, wood)
    p.polygon(
        [
            (x - 0.3 * h, foot - 0.4 * h),
            (x + 0.28 * h, foot - 0.4 * h),
            (x + 0.4 * h, foot - 0.54 * h),
            (x - 0.18 * h, foot - 0.54 * h),
        ],
        tuple(min(255.0, 1.15 * c) for c in wood),
    )
    for k in range(4):
        p.line(
            x + side * 0.28 * h,
            foot - (0.5 + 0.14 * k) * h,
            x + side * 0.36 * h,
            foot - (0.5 + 0.14 * k) * h,
            0.1 * h,
            wood,
        )
    p.line(x + side * 0.3 * h, foot - 0.45 * h, x + side * 0.34 * h, foot - h, 0.07 * h, wood)


def _cup(p: Painter, x: float, foot: float, h: float) -> None:
    glaze, side = p.colour(), p.rng.choice([-1, 1])
    p.ellipse(x + side * 0.42 * h, foot - 0.5 * h, 0.24 * h, 0.26 * h, glaze)
    p.polygon([(x - 0.42 * h, foot - h), (x + 0.42 * h, foot - h), (x + 0.3 * h, foot), (x - 0.3 * h, foot)], glaze)
    p.ellipse(x, foot - 0.97 * h, 0.4 * h, 0.1 * h, tuple(0.45 * c for c in glaze))


def _ball(p: Painter, x: float, foot: float, h: float) -> None:
    first, second, r = p.colour(), p.colour(), h / 2
    p.ellipse(x, foot - r, r, r, first)
    angle = p.rng.uniform(0, 180)
    p.ellipse(x, foot - r, r * 0.92, r * 0.3, second, angle)
    p.ellipse(x - 0.35 * r, foot - 1.4 * r, 0.18 * r, 0.14 * r, (250.0, 250.0, 250.0))


def _tree(p: Painter, x: float, foot: float, h: float) -> None:
    p.line(x, foot, x + p.rng.uniform(-0.04, 0.04) * h, foot - 0.5 * h, 0.09 * h, (95.0, 65.0, 40.0))
    leaf = (p.rng.uniform(30, 150), p.rng.uniform(90, 170), p.rng.uniform(20, 90))
    for _ in range(9):
        shade = p.rng.uniform(0.75, 1.2)
        p.ellipse(
            x + p.rng.uniform(-0.2, 0.2) * h,
            foot - p.rng.uniform(0.48, 0.9) * h,
            p.rng.uniform(0.1, 0.18) * h,
            p.rng.uniform(0.08, 0.15) * h,
            tuple(shade * c for c in leaf),
        )


def _house(p: Painter, x: float, foot: float, h: float) -> None:
    wall, roof, w = p.colour(90, 240), p.colour(40, 150), p.rng.uniform(0.38, 0.6) * h
    p.rectangle(x - w, foot - 0.62 * h, x + w, foot, wall)
    p.polygon([(x - 1.12 * w, foot - 0.6 * h), (x + 1.12 * w, foot - 0.6 * h), (x, foot - h)], roof)
    pane = p.colour(20, 110)
    for row in (0.5, 0.27):
        for dx in (-0.6, -0.05, 0.5):
            if p.rng.random() < 0.85:
                p.rectangle(
                    x + (dx - 0.1) * w, foot - row * h - 0.06 * h, x + (dx + 0.2) * w, foot - row * h + 0.07 * h, pane
                )
    p.rectangle(x - 0.12 * w, foot - 0.2 * h, x + 0.16 * w, foot, tuple(0.6 * c for c in roof))


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
"""How to draw each thing: ``draw(painter, x, foot, height)`` in pixels."""
