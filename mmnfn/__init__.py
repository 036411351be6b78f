"""mmnfn: brain-guided pretraining (NeuroFusionNet) for the OpenMMLab libraries."""

from .stack import check_stack

check_stack()  # first: the other imports need mmengine, and would fail without saying what to install

from . import registry  # noqa: E402,F401  makes the scope "mmnfn" known to mmengine
from .version import __version__  # noqa: E402

__all__ = ['__version__', 'get_model']


def __getattr__(name):
    if name == 'get_model':  # not imported before it is asked for: it brings the libraries
        from .apis import get_model

        return get_model
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
