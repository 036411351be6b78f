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
        tone = self.rng.uniform(.35, 1.)
        return (235 * tone, 190 * tone + self.rng.uniform(-8, 8), 160 * tone + self.rng.uniform(-10, 10))

    def polygon(self, points: Sequence[Tuple[float, float]], colour: Colour) -> None:
        """Fill a polygon given by (x, y) corners."""
        corners = np.round(np.asarray(points)).astype(np.int32)[None]
        cv2.fillPoly(self.image, corners, colour, cv2.LINE_AA)
        cv2.fillPoly(self.ids, corners, self._number)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Fill an upright rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, angle: float = 0.) -> None:
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
    y, rx, ry = foot - h / 2, .38 * h, .5 * h
    skin, dark = p.skin(), (30., 25., 25.)
    p.ellipse(x, y, rx, ry, skin)
    hair = p.colour(10, 120)
    p.ellipse(x, y - .33 * h, rx * .95, .2 * h, hair)
    for side in (-1, 1):
        p.ellipse(x + side * .16 * h, y - .04 * h, .07 * h, .045 * h, (245., 245., 245.))
        p.ellipse(x + side * .16 * h, y - .04 * h, .035 * h, .04 * h, dark)
    p.line(x, y, x - .02 * h, y + .13 * h, .03 * h, tuple(.75 * c for c in skin))
    p.line(x - .13 * h, y + .25 * h, x + .13 * h, y + .25 * h, .05 * h, (150., 50., 55.))


def _body(p: Painter, x: float, foot: float, h: float) -> None:
    shirt, trousers, skin = p.colour(), p.colour(20, 150), p.skin()
    lean = p.rng.uniform(-.06, .06) * h
    for side in (-1, 1):
        p.line(x + side * .05 * h, foot - .48 * h, x + side * p.rng.uniform(.05, .18) * h, foot, .1 * h, trousers)
        hand = (x + side * p.rng.uniform(.16, .34) * h, foot - p.rng.uniform(.4, .85) * h)
        p.line(x + side * .13 * h + lean, foot - .8 * h, *hand, .07 * h, skin)
    p.polygon([(x - .15 * h + lean, foot - .85 * h), (x + .15 * h + lean, foot - .85 * h),
               (x + .11 * h, foot - .42 * h), (x - .11 * h, foot - .42 * h)], shirt)
    p.ellipse(x + lean, foot - .93 * h, .075 * h, .085 * h, skin)


def _word(p: Painter, x: float, foot: float, h: float) -> None:
    text = ''.join(p.rng.choice(list(string.ascii_uppercase), int(p.rng.integers(3, 7))))
    width = (.55 + .42 * len(text)) * h * .55
    dark_on_light = p.rng.random() < .6
    board, ink = p.colour(180, 250), p.colour(0, 70)
    if not dark_on_light:
        board, ink = ink, board
    p.rectangle(x - width / 2, foot - h * .62, x + width / 2, foot, board)
    scale = .62 * h / 38
    (tw, th), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, scale, 1)
    scale *= min(1., .9 * width / max(tw, 1))
    (tw, th), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, scale, 1)
    origin = (int(x - tw / 2), int(foot - .31 * h + th / 2))
    cv2.putText(p.image, text, origin, cv2.FONT_HERSHEY_DUPLEX, scale, ink, max(1, int(.05 * h)), cv2.LINE_AA)


def _animal(p: Painter, x: float, foot: float, h: float) -> None:
    coat, side = p.colour(40, 220), p.rng.choice([-1, 1])
    for dx in (-.42, -.3, .3, .42):
        p.line(x + dx * h, foot - .5 * h, x + dx * h, foot, .09 * h, tuple(.8 * c for c in coat))
    p.ellipse(x, foot - .55 * h, .58 * h, .25 * h, coat)
    p.line(x - side * .5 * h, foot - .6 * h, x - side * .78 * h, foot - p.rng.uniform(.5, .95) * h, .06 * h, coat)
    p.ellipse(x + side * .66 * h, foot - .76 * h, .2 * h, .17 * h, coat)
    p.polygon([(x + side * .55 * h, foot - .85 * h), (x + side * .6 * h, foot - 1.02 * h),
               (x + side * .7 * h, foot - .88 * h)], coat)
    spots = p.colour(10, 90)
    for _ in range(int(p.rng.integers(0, 6))):
        p.ellipse(x + p.rng.uniform(-.4, .4) * h, foot - p.rng.uniform(.45, .65) * h, .07 * h, .06 * h, spots)


def _car(p: Painter, x: float, foot: float, h: float) -> None:
    paint = p.colour()
    p.polygon([(x - .5 * h, foot - .55 * h), (x - .32 * h, foot - .95 * h), (x + .35 * h, foot - .95 * h),
               (x + .58 * h, foot - .55 * h)], tuple(.8 * c for c in paint))
    p.polygon([(x - .38 * h, foot - .58 * h), (x - .26 * h, foot - .87 * h), (x + .29 * h, foot - .87 * h),
               (x + .44 * h, foot - .58 * h)], (170., 200., 220.))
    p.rectangle(x - h, foot - .6 * h, x + h, foot - .15 * h, paint)
    for dx in (-.6, .6):
        p.ellipse(x + dx * h, foot - .18 * h, .2 * h, .2 * h, (25., 25., 25.))
        p.ellipse(x + dx * h, foot - .18 * h, .09 * h, .09 * h, (190., 190., 190.))


def _chair(p: Painter, x: float, foot: float, h: float) -> None:
    wood, side = p.colour(50, 200), p.rng.choice([-1, 1])
    for dx in (-.25, .25):
        p.line(x + dx * h, foot - .45 * h, x + dx * h, foot, .07 * h, wood)
        p.line(x + (dx + .1) * h, foot - .45 * h, x + (dx + .1) * h, foot - .08 * h, .06 * h, wood)
    p.polygon([(x - .3 * h, foot - .4 * h), (x + .28 * h, foot - .4 * h), (x + .4 * h, foot - .54 * h),
               (x - .18 * h, foot - .54 * h)], tuple(min(255., 1.15 * c) for c in wood))
    for k in range(4):
        p.line(x + side * .28 * h, foot - (.5 + .14 * k) * h, x + side * .36 * h, foot - (.5 + .14 * k) * h,
               .1 * h, wood)
    p.line(x + side * .3 * h, foot - .45 * h, x + side * .34 * h, foot - h, .07 * h, wood)


def _cup(p: Painter, x: float, foot: float, h: float) -> None:
    glaze, side = p.colour(), p.rng.choice([-1, 1])
    p.ellipse(x + side * .42 * h, foot - .5 * h, .24 * h, .26 * h, glaze)
    p.polygon([(x - .42 * h, foot - h), (x + .42 * h, foot - h), (x + .3 * h, foot), (x - .3 * h, foot)], glaze)
    p.ellipse(x, foot - .97 * h, .4 * h, .1 * h, tuple(.45 * c for c in glaze))


def _ball(p: Painter, x: float, foot: float, h: float) -> None:
    first, second, r = p.colour(), p.colour(), h / 2
    p.ellipse(x, foot - r, r, r, first)
    angle = p.rng.uniform(0, 180)
    p.ellipse(x, foot - r, r * .92, r * .3, second, angle)
    p.ellipse(x - .35 * r, foot - 1.4 * r, .18 * r, .14 * r, (250., 250., 250.))


def _tree(p: Painter, x: float, foot: float, h: float) -> None:
    p.line(x, foot, x + p.rng.uniform(-.04, .04) * h, foot - .5 * h, .09 * h, (95., 65., 40.))
    leaf = (p.rng.uniform(30, 150), p.rng.uniform(90, 170), p.rng.uniform(20, 90))
    for _ in range(9):
        shade = p.rng.uniform(.75, 1.2)
        p.ellipse(x + p.rng.uniform(-.2, .2) * h, foot - p.rng.uniform(.48, .9) * h, p.rng.uniform(.1, .18) * h,
                  p.rng.uniform(.08, .15) * h, tuple(shade * c for c in leaf))


def _house(p: Painter, x: float, foot: float, h: float) -> None:
    wall, roof, w = p.colour(90, 240), p.colour(40, 150), p.rng.uniform(.38, .6) * h
    p.rectangle(x - w, foot - .62 * h, x + w, foot, wall)
    p.polygon([(x - 1.12 * w, foot - .6 * h), (x + 1.12 * w, foot - .6 * h), (x, foot - h)], roof)
    pane = p.colour(20, 110)
    for row in (.5, .27):
        for dx in (-.6, -.05, .5):
            if p.rng.random() < .85:
                p.rectangle(x + (dx - .1) * w, foot - row * h - .06 * h, x + (dx + .2) * w, foot - row * h + .07 * h, pane)
    p.rectangle(x - .12 * w, foot - .2 * h, x + .16 * w, foot, tuple(.6 * c for c in roof))


DRAW_THING = dict(
    face=_face, body=_body, word=_word, animal=_animal, car=_car, chair=_chair, cup=_cup, ball=_ball, tree=_tree,
    house=_house)
"""How to draw each thing: ``draw(painter, x, foot, height)`` in pixels."""
