"""Building a part of a model from its config."""

from __future__ import annotations

from typing import Any, Union

from torch import nn

from mmnfn.registry import MODELS


def build_with_defaults(cfg: Union[dict, nn.Module], **defaults: Any) -> nn.Module:
    """A module from its config, with ``defaults`` for what the config leaves out; a module is returned as it is."""
    return cfg if isinstance(cfg, nn.Module) else MODELS.build({**defaults, **cfg})
