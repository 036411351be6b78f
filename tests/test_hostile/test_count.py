"""How many files of which any byte was changed this suite reads."""

import importlib
from pathlib import Path


def test_five_thousand():
    """By seed, as the tests get them; what is made to hurt in a way of its own comes on top."""
    found = {}
    for path in sorted(Path(__file__).parent.glob('test_*.py')):
        for kind, cases in getattr(importlib.import_module(path.stem), 'CASES', {}).items():
            found[f'{path.stem} {kind}'] = len(cases)
    assert sum(found.values()) >= 5000 and len(found) > 20, found
