"""Gathering without a process group; with one, see tests/test_models/test_distributed.py."""

import pytest
import torch

from mmnfn.losses import gather_features, gather_sizes


def test_one_process_gathers_itself():
    features = torch.randn(3, 2)
    assert gather_features(features, 0, 1) is features
    assert gather_sizes(3, 0, 1, features.device) == (3,)


@pytest.mark.parametrize('rank, world_size', [(1, 1), (-1, 2), (2, 2)])
def test_rank_must_fit_world_size(rank, world_size):
    with pytest.raises(ValueError, match='rank must be in'):
        gather_sizes(3, rank, world_size, torch.device('cpu'))


@pytest.mark.parametrize('sizes', [(3, 4, 5), (4, 3), (3,)])
def test_sizes_must_fit(sizes):
    with pytest.raises(ValueError, match='sizes must hold'):
        gather_features(torch.randn(3, 2), 0, 2, sizes=sizes)
