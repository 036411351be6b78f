"""State of the random number generators of a process."""

from __future__ import annotations

import random
from typing import Any, Dict

import numpy as np
import torch


def random_state() -> Dict[str, Any]:
    """State of Python's, NumPy's and torch's global generators, the current accelerator's included.

    Returns:
        ``python``, ``numpy``, ``torch`` and ``cuda`` (None where CUDA is not in use), made of tensors, lists, tuples,
        str and numbers only, so that ``torch.load(weights_only=True)`` reads it.
    """
    name, keys, *rest = np.random.get_state()
    return dict(
        python=random.getstate(),
        numpy=(name, torch.from_numpy(keys.astype(np.int64)), *rest),
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    )


def set_random_state(state: Dict[str, Any]) -> None:
    """Set all generators to what :func:`random_state` returned.

    Args:
        state: Its tensors may be on any device. Without CUDA the state of its generator is left out.
    """
    version, keys, gauss = state['python']
    random.setstate((version, tuple(keys), gauss))
    name, keys, *rest = state['numpy']
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'].cpu())
    if state['cuda'] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())
