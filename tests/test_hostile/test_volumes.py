"""NIfTI volumes of which any byte was changed, before or after they were packed."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from guard import run_cases
from mutations import counts, mutate, rng_of

from mmnfn.nsd.volumes import read_volume, stream_volumes

CASES = counts(packed=250, inside=300, scaled=150, plain=250, stream=150, stream_inside=200)
SHAPE = (4, 3, 5)
AFFINE = np.asarray([[-1.75, 0, 0, 72], [0, 1.75, 0, -70.5], [0, 0, 1.75, -60], [0, 0, 0, 1]])
KINDS = {2: 'u1', 4: 'i2', 8: 'i4', 16: 'f4', 64: 'f8', 256: 'i1', 512: 'u2', 768: 'u4', 1024: 'i8', 1280: 'u8'}


def volume(kind):
    """The bytes of a ``.nii`` file."""
    rng = np.random.default_rng(2)
    shape = (*SHAPE, 3) if kind.startswith('stream') else SHAPE
    values = rng.integers(-1, 5, shape).astype(np.int16 if kind in ('scaled', 'stream', 'stream_inside') else float)
    image = nib.Nifti1Image(values, AFFINE)
    if values.dtype.kind == 'i':
        image.header['scl_slope'] = 0
    if kind == 'scaled':
        image.header.set_slope_inter(0.5, 3)
    content = bytearray(image.to_bytes())
    if kind == 'scaled':  # nibabel would take the scaling out again
        content[112:120] = struct.pack('<ff', 0.5, 3)
    return bytes(content)


def slow(path):
    """Values and affine of a file, taken from the places that the format gives them."""
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == '.gz' else data
    order = '<' if 1 <= struct.unpack('<h', data[40:42])[0] <= 7 else '>'
    count, *shape = struct.unpack(f'{order}8h', data[40:56])
    kind, (offset, slope, inter) = (
        struct.unpack(f'{order}h', data[70:72])[0],
        struct.unpack(f'{order}3f', data[108:120]),
    )
    values = np.frombuffer(data, order + KINDS[kind], int(np.prod(shape[:count])), int(offset))
    values = values.reshape(shape[:count], order='F')
    if np.isfinite(slope) and slope and (slope, inter) != (1, 0):
        values = values * float(slope) + float(inter)
    placed = struct.unpack(f'{order}h', data[254:256])[0] > 0
    rows = np.frombuffer(data, order + 'f4', 12, 280).reshape(3, 4) if placed else None
    return values, rows


def right(found, path):
    """The same values, and where the head has its affine as a matrix, the same affine."""
    values, rows = slow(path)
    same = found[0].shape == values.shape and np.allclose(found[0], values, 1e-6, 0, equal_nan=True)
    return same and (rows is None or len(found) < 2 or np.array_equal(found[1][:3], rows, equal_nan=True))


def read(path):
    return read_volume(path, 'map')


def stream(path):
    """All volumes of a session of three trials."""
    return (np.stack([volume.copy() for volume in stream_volumes(path, (*SHAPE, 3))], -1),)


@pytest.mark.parametrize('kind', CASES)
def test_any_bytes_changed(tmp_path, kind):
    content = volume(kind)
    path = tmp_path / ('a.nii' if kind == 'plain' else 'a.nii.gz')
    packed = gzip.compress(content, 6, mtime=0)

    def make(seed):
        rng = rng_of(seed, kind)
        if kind in ('packed', 'stream'):
            return mutate(packed, rng)
        changed = mutate(content, rng)
        return changed if kind == 'plain' else gzip.compress(changed, 1, mtime=0)

    reader = stream if kind.startswith('stream') else read
    found = run_cases(CASES[kind], path, reader, right, make, content if kind == 'plain' else packed)
    assert min(found['refused'], found['right']) > len(CASES[kind]) // 50, found


def head(content, **fields):
    """The same volume with other fields in its head."""
    header = np.frombuffer(bytearray(content[:348]), nib.Nifti1Header.template_dtype)
    for name, value in fields.items():
        header[name] = value
    return header.tobytes() + content[348:]


def bomb(start):
    """A gzip file of a megabyte that goes on with a gigabyte of zeros."""
    return gzip.compress(start) + gzip.compress(bytes(1 << 24)) * 64


def test_what_is_made_to_hurt_is_refused(tmp_path):
    content, session = volume('packed'), volume('stream')
    huge = {
        'all dimensions': dict(dim=(3, 32767, 32767, 32767, 1, 1, 1, 1)),
        'more than 2**25 voxels': dict(dim=(3, 1000, 1000, 40, 1, 1, 1, 1)),
        'negative': dict(dim=(3, -4, 3, 5, 1, 1, 1, 1)),
        'seven dimensions': dict(dim=(7, *[32767] * 7)),
        'no dimension': dict(dim=(0, 4, 3, 5, 1, 1, 1, 1)),
        'a hundred dimensions': dict(dim=(100, 4, 3, 5, 1, 1, 1, 1)),
        'values far away': dict(vox_offset=3e9),
        'values beyond numbers': dict(vox_offset=np.inf),
        'values nowhere': dict(vox_offset=np.nan),
        'values before the file': dict(vox_offset=-1000),
        'values in the head': dict(vox_offset=16),
        'another file for the values': dict(magic=b'ni1'),
        'colours': dict(datatype=128, bitpix=24),
        'complex numbers': dict(datatype=32, bitpix=64),
        'an unknown type': dict(datatype=9999),
    }
    cases = {what: gzip.compress(head(content, **fields)) for what, fields in huge.items()}
    note = bytearray(content[:348]) + b'\1\0\0\0' + struct.pack('<ii', 2**31 - 16, 6) + content[352:]
    cases['a note of two gigabytes'] = gzip.compress(head(bytes(note), vox_offset=1 << 20))
    cases['a bomb after the values'] = bomb(content)
    cases['a bomb as values'] = bomb(head(content[:352], dim=(3, 1024, 1024, 1000, 1, 1, 1, 1)))
    cases['two volumes'] = gzip.compress(content) + gzip.compress(content)
    cases['members without end'] = gzip.compress(content) + gzip.compress(b'') * 1000 + gzip.compress(b'a')
    cases['a name without end'] = b'\x1f\x8b\x08\x08' + bytes(6) + b'a' * 100_000
    assert run_cases(cases, tmp_path / 'a.nii.gz', read, right)['refused'] == len(cases)
    plain = {what: head(content, **fields) for what, fields in huge.items()}
    assert run_cases(plain, tmp_path / 'a.nii', read, right)['refused'] == len(plain)
    streams = {what: gzip.compress(head(session, **fields)) for what, fields in huge.items()}
    streams['a bomb before the values'] = bomb(head(session[:352], vox_offset=1 << 30))
    streams['a bomb after the values'] = bomb(session)
    assert run_cases(streams, tmp_path / 'a.nii.gz', stream, right)['refused'] == len(streams)
