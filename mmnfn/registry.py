"""Child registries of the mmengine root, scope ``mmnfn``.

``type='mmnfn.X'`` is found from every default scope (``mmpretrain``, ``mmdet``, ``mmseg``) once this module is
imported, which ``custom_imports = dict(imports=['mmnfn'])`` does. Only mmengine is imported here: mmengine swallows an
ImportError raised while it looks for a scope and reports "not in registry" instead.
"""

from .stack import check_stack

check_stack()  # first: the other imports need mmengine, and would fail without saying what to install

from mmengine.registry import (  # noqa: E402
    DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS,
    DATASETS as MMENGINE_DATASETS,
    FUNCTIONS as MMENGINE_FUNCTIONS,
    HOOKS as MMENGINE_HOOKS,
    METRICS as MMENGINE_METRICS,
    MODELS as MMENGINE_MODELS,
    TRANSFORMS as MMENGINE_TRANSFORMS,
    Registry,
)

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmnfn', locations=['mmnfn.models', 'mmnfn.losses'])
DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope='mmnfn', locations=['mmnfn.datasets'])
DATA_SAMPLERS = Registry('data sampler', parent=MMENGINE_DATA_SAMPLERS, scope='mmnfn', locations=['mmnfn.datasets'])
FUNCTIONS = Registry('function', parent=MMENGINE_FUNCTIONS, scope='mmnfn', locations=['mmnfn.datasets'])
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS, scope='mmnfn', locations=['mmnfn.datasets'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmnfn', locations=['mmnfn.engine'])
METRICS = Registry('metric', parent=MMENGINE_METRICS, scope='mmnfn', locations=['mmnfn.evaluation'])

__all__ = ['DATASETS', 'DATA_SAMPLERS', 'FUNCTIONS', 'HOOKS', 'METRICS', 'MODELS', 'TRANSFORMS']
