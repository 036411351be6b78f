"""JSON files of which any byte was changed: annotations and NSD's image ids."""

import ast
import json

import pytest
from guard import run_cases
from mutations import TEXT, counts, mutate, rng_of

from mmnfn.nsd.coco_json import read_coco_json
from mmnfn.nsd.coco_overlap import read_nsd_images

CASES = counts(annotations=400, nsd_images=300)
ORIGINALS = {
    'annotations': dict(
        images=[dict(id=k, file_name=f'{k:012}.jpg', width=640) for k in (9, 25, 30)],
        annotations=[dict(id=5, image_id=9, caption='a "bird"\u00e9', bbox=[1.5, 2, 3e2, 4])],
        info={},
    ),
    'nsd_images': dict(train2017=[9, 25, 532481], val2017=[139, 285]),
}


def annotations(path):
    return read_coco_json(path, {'images': 'id', 'annotations': 'image_id'})


READERS = {'annotations': annotations, 'nsd_images': read_nsd_images}


def python(text):
    """JSON through Python's own parser of literals: constants have other names, and texts other escapes."""
    decoder = json.JSONDecoder(parse_constant=lambda name: float(name.replace('Infinity', 'inf')))
    decoder.scan_once = json.scanner.py_make_scanner(decoder)
    return decoder.decode(text)


def right(found, path):
    """The same as the parser written in Python finds, key by key."""
    said = python(path.read_bytes().decode(json.detect_encoding(path.read_bytes()), 'surrogatepass'))
    return ast.dump(ast.parse(repr(sorted(found.items())))) == ast.dump(ast.parse(repr(sorted(said.items()))))


@pytest.mark.parametrize('kind', CASES)
def test_any_bytes_changed(tmp_path, kind):
    original = json.dumps(ORIGINALS[kind], indent=1).encode()
    other = json.dumps(ORIGINALS['nsd_images' if kind == 'annotations' else 'annotations']).encode()

    def make(seed):
        return mutate(original, rng_of(seed, kind), other, TEXT)

    found = run_cases(CASES[kind], tmp_path / 'a.json', READERS[kind], right, make, original)
    assert min(found['refused'], found['right']) > len(CASES[kind]) // 50, found


LEVELS = b'[' * 200_000
BAD = {
    'many levels': LEVELS,
    'many levels in a list': b'{"images": ' + LEVELS + b']' * 200_000 + b', "annotations": []}',
    'many levels of dicts': b'{"a":' * 100_000 + b'1' + b'}' * 100_000,
    'many digits': b'{"images": [{"id": ' + b'9' * 100_000 + b'}], "annotations": []}',
    'a fraction': b'{"images": [{"id": 1.0}], "annotations": []}',
    'infinity': b'{"images": [{"id": Infinity}], "annotations": []}',
    'no number': b'{"images": [{"id": NaN}], "annotations": []}',
    'true': b'{"images": [{"id": true}], "annotations": []}',
    'a text': b'{"images": [{"id": "1"}], "annotations": []}',
    'half an escape': b'{"images": "\\ud8',
    'nothing': b'',
    'zeros': bytes(1000),
    'another character set': '{"images": "\u00e9"'.encode('latin1'),
    'UTF-32': '[]'.encode('utf-32'),
}
IDS = {
    'a split is missing': b'{"val2017": [1]}',
    'another split': b'{"train2017": [1], "val2014": [2]}',
    'true': b'{"train2017": [true], "val2017": []}',
    'a fraction': b'{"train2017": [1.5], "val2017": []}',
}


def test_what_is_made_to_hurt_is_refused(tmp_path):
    for kind, cases in (
        ('annotations', BAD),
        ('nsd_images', {**BAD, **IDS}),
    ):
        found = run_cases(cases, tmp_path / 'a.json', READERS[kind], lambda *_: False)
        assert found['refused'] == len(cases)
