"""Surfaces of FreeSurfer and GIFTI of which any byte was changed."""

import base64
import gzip
import re
import struct
import zlib
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest
from guard import run_cases
from mutations import counts, mutate, rng_of

from mmnfn.nsd.fsaverage import read_white_surface

CASES = counts(freesurfer=250, gifti=300, gifti_packed=150)
NAMES = {'freesurfer': 'lh.white', 'gifti': 'white_left.gii', 'gifti_packed': 'white_left.gii.gz'}
POINTS = np.random.default_rng(1).uniform(-90, 90, (12, 3)).astype(np.float32)
FACES = np.random.default_rng(2).integers(0, 12, (8, 3)).astype(np.int32)


def surface(kind, folder, points=POINTS):
    """Bytes of a file, as nibabel writes it."""
    path = folder / 'written'
    if kind == 'freesurfer':
        nib.freesurfer.write_geometry(path, points, FACES, create_stamp='created by a test')
        return path.read_bytes()
    arrays = [nib.gifti.GiftiDataArray(points, 'NIFTI_INTENT_POINTSET', 'NIFTI_TYPE_FLOAT32')]
    arrays.append(nib.gifti.GiftiDataArray(FACES, 'NIFTI_INTENT_TRIANGLE', 'NIFTI_TYPE_INT32'))
    data = nib.gifti.GiftiImage(darrays=arrays).to_bytes()
    return gzip.compress(data, mtime=0) if kind == 'gifti_packed' else data


def read(path):
    return read_white_surface(path.parent, 'lh').coordinates


def slow_points(data):
    """Number by number, from the places that the formats give them; other programs take other files for surfaces."""
    if data.startswith(b'\xff\xff\xfe'):
        rest = data.partition(b'\n\n')[2]
        count = int.from_bytes(rest[:4], 'big')
        return [struct.unpack('>f', rest[8 + 4 * k : 12 + 4 * k])[0] for k in range(3 * count)]
    for array in ElementTree.fromstring(data).iter('DataArray'):
        if array.get('Intent') == 'NIFTI_INTENT_POINTSET':
            values = base64.b64decode(''.join(array.find('Data').itertext()))
            values = zlib.decompress(values) if array.get('Encoding').startswith('GZip') else values
            form = '<' if array.get('Endian') == 'LittleEndian' else '>'
            found = struct.unpack(f'{form}{len(values) // 4}f', values)
            rows = int(array.get('Dim0'))
            turned = array.get('ArrayIndexingOrder') == 'ColumnMajorOrder'
            return [found[rows * (k % 3) + k // 3] if turned else found[k] for k in range(3 * rows)]


def right(found, path):
    """The points that the slow reader finds."""
    data = path.read_bytes()
    return found.ravel().tolist() == slow_points(gzip.decompress(data) if path.suffix == '.gz' else data)


@pytest.mark.parametrize('kind', CASES)
def test_any_bytes_changed(tmp_path, kind):
    original = surface(kind, tmp_path)
    path = tmp_path / NAMES[kind]

    def make(seed):
        return mutate(original, rng_of(seed, kind))

    found = run_cases(CASES[kind], path, read, right, make, original)
    assert min(found['refused'], found['right']) > len(CASES[kind]) // 50, found


def test_what_is_made_to_hurt_is_refused(tmp_path):
    (tmp_path / 'secret').write_bytes(POINTS.tobytes())
    whole = surface('gifti', tmp_path).decode()
    data = re.search('<Data>(.*?)</Data>', whole, re.S)[1]
    bomb = base64.b64encode(zlib.compress(bytes(1 << 27))).decode()
    laughs = '<!DOCTYPE GIFTI [<!ENTITY a "ha">' + ''.join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip('abcdefghi', 'bcdefghij')
    )
    elsewhere = whole.replace('Encoding="GZipBase64Binary"', 'Encoding="ExternalFileBinary"', 1)
    gifti = {
        'a bomb': whole.replace(data, bomb, 1),
        'a bomb of the size that it says': whole.replace(data, bomb, 1).replace('"12"', f'"{(1 << 27) // 12}"', 1),
        'entities of entities': laughs + ']>' + whole.partition('?>')[2].replace(data, '&j;', 1),
        'an entity from a file': f'<!DOCTYPE GIFTI [<!ENTITY a SYSTEM "file://{tmp_path}/secret">]>'
        + whole.partition('?>')[2].replace(data, '&a;', 1),
        'another file': elsewhere.replace('ExternalFileName=""', f'ExternalFileName="{tmp_path}/secret"', 1),
        'more points': whole.replace('Dim0="12"', 'Dim0="13"', 1),
        'fewer points': whole.replace('Dim0="12"', 'Dim0="11"', 1),
        'endless points': whole.replace('Dim0="12"', 'Dim0="' + '9' * 5000 + '"', 1),
        'negative points': whole.replace('Dim0="12"', 'Dim0="-12"', 1),
        'two sets of points': whole.replace('NIFTI_INTENT_TRIANGLE', 'NIFTI_INTENT_POINTSET'),
        'many levels': '<a>' * 200_000,
        'another type': whole.replace('FLOAT32', 'FLOAT64', 1),
        'no number': surface('gifti', tmp_path, POINTS * np.nan).decode(),
        'far away': surface('gifti', tmp_path, POINTS * 1e6).decode(),
    }
    gifti = {name: text.encode() for name, text in gifti.items()}
    assert run_cases(gifti, tmp_path / NAMES['gifti'], read, right)['refused'] == len(gifti)
    (tmp_path / NAMES['gifti']).unlink()
    packed = {'a bomb': gzip.compress(gifti['more points']) + gzip.compress(bytes(1 << 24)) * 128}
    assert run_cases(packed, tmp_path / NAMES['gifti_packed'], read, right)['refused'] == len(packed)
    (tmp_path / NAMES['gifti_packed']).unlink()
    plain = surface('freesurfer', tmp_path)
    at = plain.index(b'\n\n') + 2
    sizes = {'vertices': (2**31 - 1, 8), 'negative': (-1, 8), 'none': (0, 8), 'faces': (12, 2**31 - 1), 'few': (11, 8)}
    free = {name: plain[:at] + struct.pack('>ii', *said) + plain[at + 8 :] for name, said in sizes.items()}
    free['quadrangles'] = b'\xff\xff\xff' + b'\x7f' * 100
    free['a line without end'] = b'\xff\xff\xfe' + b'a' * 10_000_000
    assert run_cases(free, tmp_path / NAMES['freesurfer'], read, right)['refused'] == len(free)
