"""Start-up of one process of a run: ranks, process group, threads, and what a machine without an accelerator needs.

On accelerators nothing is changed: mmengine starts NCCL as always. On a CPU machine mmengine's own start-up cannot
work (``torch.cuda.set_device``, ``device_ids``, SyncBN, AMP), so :func:`prepare_device` opens a gloo process group
before the Runner is made, which the Runner then uses, and adapts the config object in memory. No config file has to
know.
"""

from __future__ import annotations

import ctypes
import datetime
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional

import torch
import torch.distributed as torch_dist
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.runner import Runner as MMEngineRunner
from torch import nn

from .cfg_options import is_first_process

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')

# tools/dist_*.sh and torchrun set OMP_NUM_THREADS=1 where the user set nothing; the user's own value is kept here.
USER_THREADS_VARIABLE = 'MMNFN_USER_OMP_NUM_THREADS'


class Ranks(NamedTuple):
    """Place of this process among those of a run.

    Attributes:
        rank: Global rank, 0-based.
        world_size: Number of processes of the run.
        local_rank: Rank among the processes on this machine, 0-based.
        local_world_size: Number of processes on this machine.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int


def _read(launcher: str, variable: str) -> int:
    """An integer from the environment that ``launcher`` must have set."""
    value = os.environ.get(variable)
    if value is None or not value.isdigit():
        starters = dict(pytorch='tools/dist_train.sh or torchrun', slurm='tools/slurm_train.sh or srun', mpi='mpirun')
        raise ValueError(
            f'--launcher {launcher}: the environment variable {variable} is {value!r}. Start the run with '
            f'{starters[launcher]}, or use --launcher none for one process.'
        )
    return int(value)


def _per_node(world_size: int, nodes: Optional[str], tasks: Optional[str]) -> int:
    if tasks and tasks.isdigit():
        return max(1, int(tasks))
    return max(1, -(-world_size // int(nodes))) if nodes and nodes.isdigit() and int(nodes) else world_size


def read_ranks(launcher: str) -> Ranks:
    """Ranks of this process as its launcher wrote them into the environment.

    Args:
        launcher: 'none', 'pytorch' (torchrun), 'slurm' (srun) or 'mpi' (Open MPI).

    Raises:
        ValueError: An unknown launcher, or an environment that it did not set.
    """
    env = os.environ
    if launcher == 'none':
        return Ranks(0, 1, 0, 1)
    if launcher == 'pytorch':
        world_size = _read(launcher, 'WORLD_SIZE')
        local = env.get('LOCAL_WORLD_SIZE')
        return Ranks(
            _read(launcher, 'RANK'), world_size, _read(launcher, 'LOCAL_RANK'), _per_node(world_size, None, local)
        )
    if launcher == 'slurm':
        rank, world_size = _read(launcher, 'SLURM_PROCID'), _read(launcher, 'SLURM_NTASKS')
        local_world_size = _per_node(world_size, env.get('SLURM_NNODES'), env.get('SLURM_NTASKS_PER_NODE'))
        return Ranks(rank, world_size, int(env.get('SLURM_LOCALID', rank % local_world_size)), local_world_size)
    if launcher == 'mpi':
        world_size = _read(launcher, 'OMPI_COMM_WORLD_SIZE')
        return Ranks(
            _read(launcher, 'OMPI_COMM_WORLD_RANK'),
            world_size,
            _read(launcher, 'OMPI_COMM_WORLD_LOCAL_RANK'),
            _per_node(world_size, None, env.get('OMPI_COMM_WORLD_LOCAL_SIZE')),
        )
    raise ValueError(f'launcher: {launcher!r} is unknown; choose one of {", ".join(LAUNCHERS)}.')


def available_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_threads(local_world_size: int) -> int:
    """Share the machine's cores among its processes: ``max(1, cores // local_world_size)`` torch threads each.

    An OMP_NUM_THREADS of the user's is left as it is, and a single process keeps torch's own default.

    Returns:
        The number of threads that torch uses now.
    """
    user = os.environ.get(USER_THREADS_VARIABLE, os.environ.get('OMP_NUM_THREADS', ''))
    if not user and local_world_size > 1:
        threads = max(1, available_cores() // local_world_size)
        os.environ['OMP_NUM_THREADS'] = str(threads)
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def child_environment(variables: Optional[Mapping[str, str]] = None) -> Dict[str, str]:
    """Environment of a training started from here: this process's own, with its Python, and ``variables``.

    glibc gives large blocks back to the system at each free, which costs a third of a training step on a CPU; unless
    the user says otherwise it does not here.
    """
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ.get("PATH", "")}'
    memory = dict(MALLOC_MMAP_THRESHOLD_='4294967296', MALLOC_TRIM_THRESHOLD_='8589934592')
    # dist_*.sh take PYTHON, which might be another one, before the path
    return {**memory, **os.environ, 'PATH': path, 'PYTHON': sys.executable, **(variables or {})}


def _master_address() -> str:
    nodes = os.environ.get('SLURM_NODELIST')
    if not nodes or os.environ.get('SLURM_NNODES') == '1':
        return '127.0.0.1'
    try:
        hosts = subprocess.run(['scontrol', 'show', 'hostname', nodes], capture_output=True, text=True).stdout.split()
    except OSError:
        hosts = []
    if not hosts:
        raise ValueError(
            f'--launcher: scontrol, which would say the first of the nodes {nodes!r}, is not here or fails. Set '
            'MASTER_ADDR to that node.'
        )
    return hosts[0]


def init_gloo(ranks: Ranks, dist_cfg: Optional[Dict[str, Any]] = None) -> None:
    """Open a gloo process group; mmengine's Runner uses a process group that exists already.

    Args:
        ranks: Place of this process.
        dist_cfg: The config's ``env_cfg.dist_cfg``; ``timeout`` (seconds) and ``port`` are used.

    Raises:
        ValueError: Slurm's first node cannot be told.
    """
    dist_cfg = dist_cfg or {}
    env = os.environ
    env.update(RANK=str(ranks.rank), WORLD_SIZE=str(ranks.world_size), LOCAL_RANK=str(ranks.local_rank))
    if not env.get('MASTER_ADDR'):
        env['MASTER_ADDR'] = _master_address()
    env.setdefault('MASTER_PORT', str(dist_cfg.get('port') or 29500))
    timeout = dist_cfg.get('timeout')
    extra = {} if timeout is None else dict(timeout=datetime.timedelta(seconds=float(timeout)))
    torch_dist.init_process_group('gloo', rank=ranks.rank, world_size=ranks.world_size, **extra)


def _note(message: str) -> None:
    if is_first_process():
        print_log(message, 'current', logging.WARNING)


def _replace_sync_bn(node: Any) -> int:
    """Turn every SyncBN of a config into BN, in place; returns how many."""
    if isinstance(node, dict):
        found = int(node.get('type') in ('SyncBN', 'MMSyncBN'))
        if found:
            node['type'] = 'BN'
        return found + sum(_replace_sync_bn(child) for child in node.values())
    if isinstance(node, (list, tuple)):
        return sum(_replace_sync_bn(child) for child in node)
    return 0


def _without_amp(optim_wrapper: Any) -> bool:
    """Turn an AmpOptimWrapper into an OptimWrapper, in place."""
    if not isinstance(optim_wrapper, dict) or optim_wrapper.get('type') != 'AmpOptimWrapper':
        return False
    optim_wrapper['type'] = 'OptimWrapper'
    for key in ('loss_scale', 'dtype', 'use_fsdp'):
        optim_wrapper.pop(key, None)
    return True


def adapt_to_cpu(cfg: Config, distributed: bool) -> None:
    """Change, in memory, what in a config needs an accelerator.

    The backend becomes gloo, DDP gets no ``device_ids``, AMP is float32 (``AmpOptimWrapper`` refuses CPUs), memory is
    not pinned, and with several processes SyncBN is BN with the statistics of each process, because torch has no
    SyncBN for CPUs (mmengine does the same itself for one process).
    """
    if _without_amp(cfg.get('optim_wrapper')):
        _note('No accelerator: the AmpOptimWrapper of the config runs in float32.')
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if isinstance(cfg.get(name), dict) and 'pin_memory' in cfg[name]:
            cfg[name]['pin_memory'] = False
    if not distributed:
        return
    env_cfg = cfg.setdefault('env_cfg', ConfigDict())
    env_cfg.setdefault('dist_cfg', ConfigDict())['backend'] = 'gloo'
    wrapper = cfg.get('model_wrapper_cfg') or ConfigDict(
        find_unused_parameters=cfg.get('find_unused_parameters', False), broadcast_buffers=False
    )
    wrapper.setdefault('type', 'MMDistributedDataParallel')
    wrapper['device_ids'] = None
    cfg['model_wrapper_cfg'] = wrapper
    if _replace_sync_bn(cfg.get('model')):
        _note('No accelerator: SyncBN is BN with the statistics of each process.')


def prepare_device(cfg: Config, launcher: str) -> Ranks:
    """Make a config and this process ready for ``Runner.from_cfg``, on accelerators and on CPU machines.

    Args:
        cfg: The run's config; ``launcher`` is set, and on a CPU machine it is adapted (:func:`adapt_to_cpu`).
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        The place of this process.

    Raises:
        ValueError: The environment of the launcher is missing, or a machine has fewer GPUs than processes.
    """
    ranks = read_ranks(launcher)
    os.environ.setdefault('LOCAL_RANK', str(ranks.local_rank))
    cfg['launcher'] = launcher
    if get_device() != 'cpu':
        gpus = torch.cuda.device_count()
        if launcher == 'pytorch' and 0 < gpus < ranks.local_world_size:
            raise ValueError(
                f'{ranks.local_world_size} processes were started here and this machine shows {gpus} GPU(s): '
                'start at most one process per GPU, or set CUDA_VISIBLE_DEVICES= (empty) to run on the CPU.'
            )
        torch.set_float32_matmul_precision('high')  # TF32
        torch.backends.cudnn.allow_tf32 = True
        return ranks
    limit_threads(ranks.local_world_size)
    adapt_to_cpu(cfg, launcher != 'none')
    if launcher != 'none' and not torch_dist.is_initialized():
        init_gloo(ranks, cfg.env_cfg.dist_cfg)
    return ranks


def arrange_channels(model: nn.Module) -> None:
    """Let a ConvNeXt on an accelerator work with its channels last, which is faster there."""
    backbone = getattr(model, 'backbone', None)
    if get_device() != 'cpu' and type(backbone).__name__ == 'ConvNeXt':
        backbone.to(memory_format=torch.channels_last)


class Runner(MMEngineRunner):
    """MMEngine's Runner, which makes the backbone ready before it wraps the model for several processes.

    Backbones of MMPretrain freeze their ``frozen_stages`` in ``train()`` only. MMEngine calls that after it has wrapped
    the model, and the wrapper would wait for gradients of weights that have none. With ``compile_backbone`` in the
    config the backbone is compiled, and its weights keep their names.
    """

    def wrap_model(self, model_wrapper_cfg: Optional[Dict], model: nn.Module) -> nn.Module:
        """Wrap a model whose backbone is ready."""
        model.train()
        arrange_channels(model)
        if self.cfg.get('compile_backbone'):
            model.backbone.forward = torch.compile(model.backbone.forward)
        return super().wrap_model(model_wrapper_cfg, model)


def close_device() -> None:
    """End the process group of this process, if there is one.

    A gloo group's threads let go of a collective's tensors a moment after it has returned, and need the GIL to do so;
    its destructor holds the GIL while it waits for the threads, and hangs for ever if it comes within that moment. A
    gloo group is therefore never destructed: its threads end with the process.
    """
    if torch_dist.is_available() and torch_dist.is_initialized():
        if torch_dist.get_backend() == 'gloo':
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(torch_dist.group.WORLD))
        torch_dist.destroy_process_group()
