"""mmnfn: brain-guided pretraining (NeuroFusionNet) for the OpenMMLab libraries."""

from .stack import check_stack

check_stack()  # first: the other imports need mmengine, and would fail without saying what to install

from . import registry  # noqa: E402,F401  makes the scope "mmnfn" known to mmengine
from .version import __version__  # noqa: E402

__all__ = ['__version__']
