"""The temperature σ by which similarities are divided."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

MAX_LOGIT_SCALE = 100.0


class Temperature(nn.Module):
    """A positive number σ, learnable or fixed.

    Learnable, it is kept as ``log_scale`` = log(1/σ), and 1/σ is held at most 100 as in CLIP (the parameter itself is
    clamped before it is used, so that its gradient never dies at the border). Exclude it from weight decay with
    ``paramwise_cfg=dict(custom_keys={'log_scale': dict(decay_mult=0.)})``.

    Args:
        init: Value of σ at the start.
        learnable: Whether σ is trained.

    Raises:
        ValueError: If ``init`` is not positive, or learnable and below 0.01.
    """

    def __init__(self, init: float, learnable: bool):
        super().__init__()
        smallest = 1 / MAX_LOGIT_SCALE if learnable else 0.0
        if not init > 0 or init < smallest:
            raise ValueError(
                f'temperature must be positive, and at least {1 / MAX_LOGIT_SCALE} when it is learnable, but got {init}'
            )
        log_scale = torch.tensor(-math.log(init))
        if learnable:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer('log_scale', log_scale, persistent=False)
        self.learnable = learnable

    def forward(self) -> Tensor:
        """Returns σ, a tensor without axes."""
        if not self.learnable:
            return torch.exp(-self.log_scale)
        if self.training:
            with torch.no_grad():
                self.log_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
        # Added up, so that nothing keeps the parameter for the backward pass: a second call in the same step clamps it
        # again, which changes nothing, but autograd would refuse it.
        excess = (self.log_scale.clamp(max=math.log(MAX_LOGIT_SCALE)) - self.log_scale).detach()
        return torch.exp(-(self.log_scale + excess))
