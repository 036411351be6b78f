"""The design file (MATLAB) of which any byte was changed, before or after it was packed."""

import io
import struct
import zlib

import numpy as np
import pytest
import scipy.io
from guard import run_cases
from mutations import counts, mutate, rng_of

from mmnfn.nsd.design import read_design
from mmnfn.nsd.mat_file import MAX_BYTES

CASES = counts(plain=350, packed=300, inside=300)


def design():
    """A design of two subjects with ten images, shown seventy-five times each."""
    rng = np.random.default_rng(1)
    own = np.stack([np.r_[3, 5, 8, 20 + rng.permutation(7)], np.r_[3, 5, 8, 40 + rng.permutation(7)]])
    return dict(
        masterordering=rng.permutation(np.repeat(np.arange(10), 75))[None].astype(np.uint16) + 1,
        subjectim=own.astype(np.int32),
        sharedix=np.asarray([[3, 5, 8]]),
        basiccnt=np.zeros((2, 3)),
    )


def saved(packed, content=None):
    """Bytes of a file."""
    stream = io.BytesIO()
    scipy.io.savemat(stream, content or design(), do_compression=packed)
    data = stream.getvalue()
    return b'MATLAB 5.0 MAT-file'.ljust(116) + data[116:]  # without the time


def inside(seed):
    """The plain file changed behind its head, then every variable packed."""
    whole = saved(False)
    changed = mutate(whole[128:], rng_of(seed, 'inside'))
    sizes, at, parts = [8 + struct.unpack_from('<I', whole, 132)[0]], 0, []
    while 128 + sum(sizes) < len(whole):
        sizes.append(8 + struct.unpack_from('<I', whole, 132 + sum(sizes))[0])
    for size in sizes:
        packed = zlib.compress(changed[at : at + size])
        parts.append(struct.pack('<II', 15, len(packed)) + packed)
        at += size
    return whole[:128] + b''.join(parts)


def read(path):
    found = read_design(path)
    return found.order, found.own, found.shared


KINDS = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8'}


def slow_variables(data):
    """Name → numbers of each variable, element by element as the format describes it; the last of a name counts."""
    order, found, at = '<' if data[126:128] == b'IM' else '>', {}, 128

    def element(part, at):
        kind, size = struct.unpack_from(f'{order}II', part, at)
        if kind >> 16:  # four bytes or fewer stand in the tag
            return kind & 0xFFFF, part[at + 4 : at + 4 + (kind >> 16)], at + 8
        return kind, part[at + 8 : at + 8 + size], at + 8 + -(-size // 8) * 8

    while at < len(data):
        kind, size = struct.unpack_from(f'{order}II', data, at)
        part = data[at : at + 8 + size] if kind == 14 else zlib.decompress(data[at + 8 : at + 8 + size])
        at += 8 + size
        _, _, inner = element(part, 8)
        _, dims, inner = element(part, inner)
        _, name, inner = element(part, inner)
        kind, values, _ = element(part, inner)
        shape = struct.unpack(f'{order}{len(dims) // 4}i', dims)
        count = int(np.prod(shape))
        values = np.frombuffer(values, order + KINDS[kind], count) if kind in KINDS else None
        found[name.rstrip(b'\0').decode('latin1')] = None if values is None else values.reshape(shape, order='F')
    return found


def right(found, path):
    """Orders and images are those of the variables, less one."""
    said = slow_variables(path.read_bytes())
    order, own, shared = found
    return (
        np.array_equal(order, said['masterordering'].ravel().astype(float) - 1)
        and np.array_equal(own, said['subjectim'].astype(float) - 1)
        and shared == said['sharedix'].size
    )


@pytest.mark.parametrize('kind', CASES)
def test_any_bytes_changed(tmp_path, kind):
    original = saved(kind == 'packed')
    make = inside if kind == 'inside' else lambda seed: mutate(original, rng_of(seed, kind))
    found = run_cases(CASES[kind], tmp_path / 'a.mat', read, right, make, original)
    assert min(found['refused'], found['right']) > len(CASES[kind]) // 50, found


def variable(name, body, kind=6, dims=(1, 1)):
    """A matrix whose values are what is given."""
    parts = struct.pack('<IIII', 6, 8, kind, 0) + struct.pack('<II', 5, 4 * len(dims)) + struct.pack('<2i', *dims)
    parts += struct.pack('<II', 1, len(name)) + name.encode().ljust(-(-len(name) // 8) * 8, b'\0') + body
    return struct.pack('<II', 14, len(parts)) + parts


def test_what_is_made_to_hurt_is_refused(tmp_path):
    plain, packed, head = saved(False), saved(True), saved(False)[:128]
    rest = saved(False, {name: value for name, value in design().items() if name != 'masterordering'})[128:]
    nested = variable('masterordering', b'', 1, (0, 0))
    for _ in range(2000):
        nested = variable('masterordering', nested, 1)
    zeros = zlib.compressobj(9)
    bomb = zeros.compress(variable('masterordering', struct.pack('<II', 9, 2**31 - 8), 6, (1, 2**28)))
    bomb += b''.join(zeros.compress(bytes(1 << 22)) for _ in range(MAX_BYTES >> 21)) + zeros.flush()
    many = struct.pack('<II', 15, len(zlib.compress(bytes(1 << 25)))) + zlib.compress(bytes(1 << 25))
    values = struct.pack('<IId', 9, 8, 1.0)
    cells = {
        kind: head + variable('masterordering', values, number) + rest
        for kind, number in dict(cell=1, struct=2, object=3, char=4, sparse=5, function=16, opaque=17).items()
    }
    bad = {
        'cells in cells': head + nested + rest,
        'a bomb': head + struct.pack('<II', 15, len(bomb)) + bomb + rest,
        'a bomb of several': head + many * 4 + rest,
        'a size beyond the file': head + struct.pack('<II', 14, 2**32 - 1) + plain[136:],
        'a size of values beyond the file': head
        + variable('masterordering', struct.pack('<II', 9, 2**31 - 8) + bytes(8), 6, (1, 2**28))
        + rest,
        'dimensions beyond the file': head + variable('masterordering', values, 6, (2**30, 2**30)) + rest,
        'negative dimensions': head + variable('masterordering', values, 6, (-1, 750)) + rest,
        'version 4': struct.pack('<5i', 0, 2**30, 2**30, 0, 15) + b'masterordering\0' + bytes(64),
        'version 7.3': b'MATLAB 7.3 MAT-file'.ljust(116) + bytes(8) + b'\0\2IM' + b'\x89HDF\r\n\x1a\n' + bytes(500),
        'packed in packed': head + struct.pack('<II', 15, len(packed)) + zlib.compress(packed[128:]),
        'a wrong checksum': packed[:-1] + bytes([packed[-1] ^ 1]),
        'head only': head,
        **cells,
        **{f'{what}': saved(False, {**design(), **change}) for what, change in CHANGES.items()},
    }
    found = run_cases(bad, tmp_path / 'a.mat', read, right)
    assert found['refused'] == len(bad), found


CHANGES = {
    'no number': dict(masterordering=np.full((1, 750), np.nan)),
    'infinity': dict(masterordering=np.full((1, 750), np.inf)),
    'huge': dict(masterordering=np.full((1, 750), 1e300)),
    'halves': dict(masterordering=np.full((1, 750), 1.5)),
    'complex': dict(masterordering=np.full((1, 750), 1 + 1j)),
    'text': dict(masterordering=np.asarray(['1'] * 750)),
    'beyond the images': dict(masterordering=np.full((1, 750), 11)),
    'zero': dict(masterordering=np.zeros((1, 750))),
    'too large for 64 bits': dict(subjectim=np.full((2, 10), 2**64 - 1, np.uint64)),
}
