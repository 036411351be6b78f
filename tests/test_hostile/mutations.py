"""Ways to change the bytes of a file."""

import random
import struct
from typing import Callable, Dict, Sequence

LARGE = (0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**31 + 8, 2**40, 2**63 - 1, 2**64 - 1)
WORDS = (
    'NaN nan Infinity -Infinity -inf 1e999 -1 0 1 00 1.5 1e3 true null True "" \\ud800 , ,, ; # { } [ ] : &a *a << !! '
    '0x10 1_0 +1 " \' \\ \x1a \xe9 \u0661 \ufeff'
).split(' ')
TOKENS = (*WORDS, '9' * 30, '9' * 5000, '\n', '\r', '\t', '\0', '\x0b', '\u2028', ' ')
"""What parsers of text may take for something else."""


def flip(data: bytearray, at: int, rng: random.Random, other: bytes) -> None:
    """Change a bit."""
    data[at] ^= 1 << rng.randrange(8)


def put_byte(data: bytearray, at: int, rng: random.Random, other: bytes) -> None:
    """Replace a byte."""
    data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def put_large(data: bytearray, at: int, rng: random.Random, other: bytes) -> None:
    """Write a number that would be a frightening length, in either byte order."""
    number, at = rng.choice(LARGE), at // 4 * 4 if rng.random() < 0.7 else at
    width = max(rng.choice((2, 4, 8)), (number.bit_length() + 7) // 8)
    packed = number.to_bytes(width, rng.choice(('little', 'big')))
    data[at : at + width] = packed[: len(data) - at]


def put_float(data: bytearray, at: int, rng: random.Random, other: bytes) -> None:
    """Write a number that is none, or is huge."""
    form = rng.choice(('<f', '>f', '<d', '>d'))
    packed = struct.pack(form, rng.choice((float('nan'), float('inf'), -1.0, 1e30, 352.5, 0.0)))
    data[at : at + len(packed)] = packed[: len(data) - at]


def cut(data: bytearray, at: int, rng: random.Random, other: bytes) -> None:
    """End the file."""
    del data[at:]


def insert(data: bytearray, at: int, rng: random.Random, other: bytes) -> None:
    """Add bytes."""
    data[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 1, 2, 4, 8, 64))))


def delete(data: bytearray, at: int, rng: random.Random, other: bytes) -> None:
    """Take bytes out."""
    del data[at : at + rng.choice((1, 1, 2, 4, 8, 64, 512))]


def zero(data: bytearray, at: int, rng: random.Random, other: bytes) -> None:
    """A hole."""
    end = min(len(data), at + rng.choice((4, 16, 64, 512, 4096)))
    data[at:end] = bytes(end - at)


def repeat(data: bytearray, at: int, rng: random.Random, other: bytes) -> None:
    """The same block once more."""
    data[at:at] = data[at : at + rng.choice((1, 8, 40, 200, 1000))]


def swap(data: bytearray, at: int, rng: random.Random, other: bytes) -> None:
    """Two blocks change places."""
    size, there = rng.choice((2, 8, 40, 200)), rng.randrange(len(data))
    first, second = sorted((at, there))
    size = min(size, second - first, len(data) - second)
    one, two = data[first : first + size], data[second : second + size]
    data[first : first + size], data[second : second + size] = two, one


def splice(data: bytearray, at: int, rng: random.Random, other: bytes) -> None:
    """The head of one file, the tail of another."""
    data[at:] = other[rng.randrange(len(other) + 1) if rng.random() < 0.5 else at :]


def token(data: bytearray, at: int, rng: random.Random, other: bytes) -> None:
    """Put in what a parser may take for something else, or put it in the place of something."""
    data[at : at + rng.choice((0, 1, 2, 4))] = rng.choice(TOKENS).encode('utf-8', 'surrogatepass')


def digit(data: bytearray, at: int, rng: random.Random, other: bytes) -> None:
    """Another digit in the place of one."""
    places = [k for k, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    if places:
        data[rng.choice(places)] = rng.choice(b'0123456789')


def line(data: bytearray, at: int, rng: random.Random, other: bytes) -> None:
    """A line goes, or comes twice, or changes its place."""
    lines = bytes(data).split(b'\n')
    k, action = rng.randrange(len(lines)), rng.randrange(3)
    moved = lines[k] if action == 1 else lines.pop(k)
    if action:
        lines.insert(rng.randrange(len(lines) + 1), moved)
    data[:] = b'\n'.join(lines)


BINARY: Sequence[Callable] = (
    *(flip, flip, flip, put_byte, put_byte, put_large, put_large, put_float),
    *(cut, insert, delete, zero, repeat, swap, splice),
)
TEXT: Sequence[Callable] = (flip, put_byte, cut, insert, delete, repeat, swap, splice, token, token, token, digit, line)


def mutate(data: bytes, rng: random.Random, other: bytes = b'', ways: Sequence[Callable] = BINARY) -> bytes:
    """Change a file in one to three places; half of them in its first kilobyte, where the lengths are."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not changed:
            break
        end = len(changed) if rng.random() < 0.5 else min(1024, len(changed))
        rng.choice(ways)(changed, rng.randrange(end), rng, other or data)
    return bytes(changed)


def rng_of(seed: int, what: str) -> random.Random:
    """Source of randomness of a case, the same in every version of Python."""
    return random.Random(f'{what} {seed}')


def counts(**numbers: int) -> Dict[str, Dict[int, int]]:
    """Name of a file → its cases, by seed."""
    return {name: {seed: seed for seed in range(number)} for name, number in numbers.items()}
