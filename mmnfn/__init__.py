"""mmnfn: brain-guided pretraining (NeuroFusionNet) for the OpenMMLab libraries."""

from importlib.util import find_spec

from .version import __version__

if find_spec('mmengine'):  # mmnfn.nsd does without
    from . import registry  # noqa: F401  registers the scope "mmnfn" with mmengine

__all__ = ['__version__', 'get_model']


def __getattr__(name):
    if name == 'get_model':  # imported on demand: it brings the libraries
        from .apis import get_model

        return get_model
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
