"""What two trainings that should be the same have in common."""

import json
from pathlib import Path

import torch
from same import assert_same


def load(work):
    """The last checkpoint of a training."""
    return torch.load(Path((work / 'last_checkpoint').read_text()), map_location='cpu', weights_only=False)


def losses(work):
    """Iteration → loss as it was logged; with ``lr`` and gradient norm, where they are logged."""
    found = {}
    for path in work.glob('*/vis_data/scalars.json'):
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # of a run that was killed while it wrote it
            if 'loss' in entry:
                found[entry['step']] = {key: entry[key] for key in ('loss', 'lr', 'grad_norm') if key in entry}
    return found


def assert_same_end(unbroken, resumed):
    """Weights, optimizer, schedules, random numbers and the logged losses are equal to the last bit."""
    one, two = load(unbroken), load(resumed)
    assert len(one['state_dict']) > 50 and len(one['optimizer']['state']) > 50
    for key in ('state_dict', 'optimizer', 'param_schedulers', 'mmnfn_resume'):
        assert_same(one[key], two[key], key)
    assert [one['meta'][key] for key in ('epoch', 'iter')] == [two['meta'][key] for key in ('epoch', 'iter')]
    expected, found = losses(unbroken), losses(resumed)
    last = max(expected)
    assert last == one['meta']['iter'] == max(found) and found[last] == expected[last]
