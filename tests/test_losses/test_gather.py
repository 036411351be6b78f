"""Gathering without a process group; tests/test_models/test_distributed.py has one."""

import pytest
import torch

from mmnfn.losses import gather_features, gather_sizes


def test_one_process_gathers_itself_and_wrong_sizes_are_refused():
    features = torch.randn(3, 2)
    assert gather_features(features, 0, 1) is features and gather_sizes(3, 0, 1, features.device) == (3,)
    with pytest.raises(ValueError, match='rank must be in'):
        gather_sizes(3, 2, 2, features.device)
    with pytest.raises(ValueError, match='sizes must hold'):
        gather_features(features, 0, 2, sizes=(4, 3))
