"""mmnfn: brain-guided pretraining (NeuroFusionNet) for the OpenMMLab libraries."""

from importlib.util import find_spec

from .version import __version__

if find_spec('mmengine'):  # mmnfn.nsd alone does without
    from . import registry  # noqa: F401  makes the scope "mmnfn" known to mmengine

__all__ = ['__version__', 'get_model']


def __getattr__(name):
    if name == 'get_model':  # not imported before it is asked for: it brings the libraries
        from .apis import get_model

        return get_model
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
