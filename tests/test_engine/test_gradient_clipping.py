"""The pretraining configs clip gradients, and what they say takes effect."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
PRETRAINING = [*sorted((CONFIGS / 'nfn').glob('*.py')), CONFIGS / 'demo/pretrain.py']


@pytest.mark.parametrize('path', PRETRAINING, ids=lambda path: path.stem)
@pytest.mark.parametrize('gradient, step', [(1e6, 20.0), (1.0, 2.0)])
def test_a_step_is_as_long_as_the_clipped_gradient(path, gradient, step):
    """Plain SGD with learning rate 1 moves the four weights by the gradient, of length 2 times ``gradient``."""
    cfg = Config.fromfile(path).optim_wrapper
    cfg.optimizer = dict(type='SGD', lr=1.0, weight_decay=0.0)
    model = torch.nn.Linear(4, 1, bias=False)
    before = model.weight.detach().clone()
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        optim_wrapper = build_optim_wrapper(model, cfg)
    optim_wrapper.update_params(model(torch.full((1, 4), gradient)).sum())
    assert float((model.weight.detach() - before).norm()) == pytest.approx(step, rel=1e-5)
