"""Start one process of a run: its rank, its process group and the Runner, on accelerators and on CPU machines.

MMEngine starts NCCL on accelerators, and nothing is changed there. Its start-up cannot work on a CPU machine
(``torch.cuda.set_device``, ``device_ids``, SyncBN, AMP), so :func:`prepare_device` opens a gloo process group, which
MMEngine's Runner then uses, and :class:`Runner` wraps the model for CPUs. Configs are the same for both.
"""

from __future__ import annotations

import ctypes
import datetime
import os
import subprocess
import sys
from pathlib import Path
from typing import Dict, Mapping, Optional, Tuple

import torch
import torch.distributed as torch_dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import Runner as MMEngineRunner
from torch import nn

from mmnfn.utils import UserError

# Where launchers write the rank, the number of processes, and the rank among the processes of this machine.
VARIABLES = dict(
    pytorch=('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
)
LAUNCHERS = ('none', *VARIABLES)


def read_ranks(launcher: str) -> Tuple[int, int, int]:
    """Read the rank, the number of processes and the local rank that a launcher wrote into the environment.

    Args:
        launcher: 'none' (one process), 'pytorch' (torchrun), 'slurm' (srun) or 'mpi' (Open MPI).

    Raises:
        UserError: The launcher did not start this process.
    """
    if launcher == 'none':
        return 0, 1, 0
    try:
        rank, world_size, local_rank = (int(os.environ[name]) for name in VARIABLES[launcher])
    except KeyError as error:
        starter = dict(pytorch='tools/dist_train.sh or torchrun', slurm='tools/slurm_train.sh or srun', mpi='mpirun')
        raise UserError(
            f'--launcher {launcher}: the environment variable {error.args[0]} is not set. Start the run with '
            f'{starter[launcher]}, or use --launcher none for one process.'
        ) from error
    return rank, world_size, local_rank


def is_first_process() -> bool:
    """Check whether this is the first process of the run; works before the process group exists."""
    return _first_value(0) == '0'


def is_first_of_machine() -> bool:
    """Check whether this is the first process of its machine; works before the process group exists."""
    return _first_value(2) == '0'


def _first_value(column: int) -> str:
    return next((os.environ[names[column]] for names in VARIABLES.values() if os.environ.get(names[column])), '0')


def available_cores() -> int:
    """Count the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def child_environment(variables: Optional[Mapping[str, str]] = None) -> Dict[str, str]:
    """Make the environment of a training that is started from here: this process's own and ``variables``.

    glibc gives large blocks back to the system at each free, which costs a third of a training step on a CPU. Unless
    the user has set its thresholds, it keeps them.
    """
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ.get("PATH", "")}'
    memory = dict(MALLOC_MMAP_THRESHOLD_='4294967296', MALLOC_TRIM_THRESHOLD_='8589934592')
    # PYTHON: dist_*.sh use it before what is on the PATH
    return {**memory, **os.environ, 'PATH': path, 'PYTHON': sys.executable, **(variables or {})}


def prepare_device(cfg: Config, launcher: str) -> int:
    """Make a config and this process ready for ``Runner.from_cfg``.

    On a CPU machine AMP becomes float32 and several processes open a gloo process group.

    Args:
        cfg: The run's config; ``launcher`` is set.
        launcher: One of :data:`LAUNCHERS`.

    Returns:
        The number of processes.

    Raises:
        UserError: The launcher did not start this process, or there are fewer GPUs than processes.
    """
    rank, world_size, local_rank = read_ranks(launcher)
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    cfg.launcher = launcher
    if get_device() != 'cpu':
        gpus, processes = torch.cuda.device_count(), int(os.environ.get('LOCAL_WORLD_SIZE', 1))
        if launcher == 'pytorch' and 0 < gpus < processes:
            raise UserError(
                f'{processes} processes were started on this machine, which shows {gpus} GPU(s). Start at most one '
                'process per GPU, or set CUDA_VISIBLE_DEVICES= (empty) to run on the CPU.'
            )
        torch.set_float32_matmul_precision('high')  # TF32
        torch.backends.cudnn.allow_tf32 = True
        return world_size
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') == 'AmpOptimWrapper':  # which refuses to work without an accelerator
        print_log('No accelerator: the AmpOptimWrapper of the config runs in float32.', 'current')
        wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
    if launcher != 'none':
        _init_gloo(rank, world_size, launcher, (cfg.get('env_cfg') or {}).get('dist_cfg') or {})
    return world_size


def _init_gloo(rank: int, world_size: int, launcher: str, dist_cfg: dict) -> None:
    """Open a gloo process group; ``timeout`` (seconds) and ``port`` of MMEngine's ``dist_cfg`` are used."""
    if not os.environ.get('MASTER_ADDR'):
        address = '127.0.0.1'
        if launcher == 'slurm' and os.environ.get('SLURM_NNODES') != '1':
            command = ['scontrol', 'show', 'hostname', os.environ['SLURM_NODELIST']]
            address = subprocess.check_output(command, text=True).split()[0]
        os.environ['MASTER_ADDR'] = address
    os.environ.setdefault('MASTER_PORT', str(dist_cfg.get('port', 29500)))
    timeout = datetime.timedelta(seconds=dist_cfg.get('timeout', 1800))
    torch_dist.init_process_group('gloo', rank=rank, world_size=world_size, timeout=timeout)


def arrange_channels(model: nn.Module) -> None:
    """Put the channels of a ConvNeXt's weights last on an accelerator, which is faster there."""
    backbone = getattr(model, 'backbone', None)
    if get_device() != 'cpu' and type(backbone).__name__ == 'ConvNeXt':
        backbone.to(memory_format=torch.channels_last)


class Runner(MMEngineRunner):
    """Run like MMEngine, with a model that is made ready before it is wrapped for several processes."""

    def wrap_model(self, model_wrapper_cfg: Optional[Dict], model: nn.Module) -> nn.Module:
        """Wrap a model.

        Backbones of MMPretrain freeze their ``frozen_stages`` only in ``train()``, which MMEngine calls after it has
        wrapped the model; DDP would wait for gradients that never come. With ``compile_backbone`` in the config the
        backbone is compiled, and its weights keep their names. On CPUs, where torch has no SyncBN, SyncBN becomes BN
        with the statistics of each process.
        """
        model.train()
        arrange_channels(model)
        if self.cfg.get('compile_backbone'):
            model.backbone.forward = torch.compile(model.backbone.forward)
        if self.distributed and get_device() == 'cpu':
            model = revert_sync_batchnorm(model)
            defaults = dict(
                type='MMDistributedDataParallel',
                find_unused_parameters=self.cfg.get('find_unused_parameters', False),
                broadcast_buffers=False,
            )
            model_wrapper_cfg = {**(model_wrapper_cfg or defaults), 'device_ids': None}
        return super().wrap_model(model_wrapper_cfg, model)


def close_device() -> None:
    """End the process group of this process, if there is one.

    A gloo group's threads let go of a collective's tensors a moment after it has returned, and need the GIL to do so.
    Its destructor holds the GIL while it waits for the threads, and hangs for ever if it comes within that moment. So
    a gloo group is never destructed: its threads end with the process.
    """
    if torch_dist.is_available() and torch_dist.is_initialized():
        if torch_dist.get_backend() == 'gloo':
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(torch_dist.group.WORLD))
        torch_dist.destroy_process_group()
