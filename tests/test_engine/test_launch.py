"""Start-up of a process: ranks, threads and what a CPU machine changes."""

import copy
import gc
import os
import sys
import weakref

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from toy_training import CONFIG, load, train

from mmnfn.engine import launch, run_config
from mmnfn.engine.launch import Runner

LAUNCH_VARIABLES = (
    'RANK',
    'WORLD_SIZE',
    'LOCAL_RANK',
    'LOCAL_WORLD_SIZE',
    'SLURM_PROCID',
    'SLURM_NTASKS',
    'SLURM_LOCALID',
    'SLURM_NTASKS_PER_NODE',
    'SLURM_NNODES',
    'SLURM_NODELIST',
    'OMPI_COMM_WORLD_RANK',
    'OMPI_COMM_WORLD_SIZE',
    'OMPI_COMM_WORLD_LOCAL_RANK',
    'OMPI_COMM_WORLD_LOCAL_SIZE',
    'MASTER_ADDR',
    'MASTER_PORT',
    'OMP_NUM_THREADS',
    launch.USER_THREADS_VARIABLE,
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No launcher's variables, and torch's threads as they were."""
    for name in LAUNCH_VARIABLES:
        monkeypatch.setenv(name, '')  # restored afterwards, also where the code under test sets it
        monkeypatch.delenv(name)
    threads = torch.get_num_threads()
    yield monkeypatch
    torch.set_num_threads(threads)


def config():
    return Config(
        dict(
            model=dict(
                type='EncoderDecoder',
                decode_head=dict(norm_cfg=dict(type='SyncBN', requires_grad=True)),
                heads=[dict(norm_cfg=dict(type='SyncBN')), dict(norm_cfg=dict(type='LN'))],
            ),
            train_dataloader=dict(batch_size=2, pin_memory=True),
            find_unused_parameters=True,
            optim_wrapper=dict(
                type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16', optimizer=dict(type='SGD')
            ),
            env_cfg=dict(dist_cfg=dict(backend='nccl', timeout=60)),
        )
    )


@pytest.mark.parametrize(
    'launcher, environment, expected',
    [
        ('none', {}, (0, 1, 0, 1)),
        ('pytorch', dict(RANK='5', WORLD_SIZE='8', LOCAL_RANK='1', LOCAL_WORLD_SIZE='4'), (5, 8, 1, 4)),
        ('slurm', dict(SLURM_PROCID='5', SLURM_NTASKS='8', SLURM_LOCALID='1', SLURM_NTASKS_PER_NODE='4'), (5, 8, 1, 4)),
        ('slurm', dict(SLURM_PROCID='5', SLURM_NTASKS='8', SLURM_NNODES='2'), (5, 8, 1, 4)),
        (
            'mpi',
            dict(
                OMPI_COMM_WORLD_RANK='5',
                OMPI_COMM_WORLD_SIZE='8',
                OMPI_COMM_WORLD_LOCAL_RANK='1',
                OMPI_COMM_WORLD_LOCAL_SIZE='4',
            ),
            (5, 8, 1, 4),
        ),
    ],
)
def test_ranks_come_from_the_launchers_environment(launcher, environment, expected, clean_environment):
    for name, value in environment.items():
        clean_environment.setenv(name, value)
    assert launch.read_ranks(launcher) == expected


@pytest.mark.parametrize(
    'launcher, variable', [('pytorch', 'WORLD_SIZE'), ('slurm', 'SLURM_PROCID'), ('mpi', 'OMPI_COMM_WORLD_SIZE')]
)
def test_missing_environment_is_named(launcher, variable):
    with pytest.raises(ValueError, match=f'--launcher {launcher}.*{variable}'):
        launch.read_ranks(launcher)


def test_unknown_launcher_is_named():
    with pytest.raises(ValueError, match="'torque'.*pytorch"):
        launch.read_ranks('torque')


@pytest.mark.parametrize('cores, processes, expected', [(8, 2, 4), (2, 2, 1), (2, 5, 1)])
def test_processes_share_the_cores(cores, processes, expected, monkeypatch):
    monkeypatch.setattr(launch, 'available_cores', lambda: cores)
    assert launch.limit_threads(processes) == torch.get_num_threads() == expected


def test_threads_of_the_user_stay(monkeypatch):
    monkeypatch.setattr(launch, 'available_cores', lambda: 64)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    before = torch.get_num_threads()
    assert launch.limit_threads(2) == before
    # Set by torchrun, not by the user: tools/dist_train.sh passes on what the user had set, here nothing.
    monkeypatch.setenv(launch.USER_THREADS_VARIABLE, '')
    assert launch.limit_threads(16) == 4


def test_one_process_keeps_torchs_threads(monkeypatch):
    monkeypatch.setattr(launch, 'available_cores', lambda: 64)
    before = torch.get_num_threads()
    assert launch.limit_threads(1) == before


def test_cpu_run_of_one_process_changes_amp_and_pinning_only():
    cfg = config()
    before = copy.deepcopy(cfg)
    launch.adapt_to_cpu(cfg, distributed=False)
    assert cfg.optim_wrapper == dict(type='OptimWrapper', optimizer=dict(type='SGD'))
    assert cfg.train_dataloader == dict(batch_size=2, pin_memory=False)
    assert cfg.model == before.model and cfg.env_cfg == before.env_cfg
    assert 'model_wrapper_cfg' not in cfg


def test_cpu_run_of_several_processes():
    cfg = config()
    launch.adapt_to_cpu(cfg, distributed=True)
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel', device_ids=None, find_unused_parameters=True, broadcast_buffers=False
    )
    assert cfg.env_cfg.dist_cfg == dict(backend='gloo', timeout=60)
    assert cfg.model.decode_head.norm_cfg == dict(type='BN', requires_grad=True)
    assert [head.norm_cfg.type for head in cfg.model.heads] == ['BN', 'LN']


def test_own_model_wrapper_is_kept():
    cfg = config()
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', static_graph=True)
    launch.adapt_to_cpu(cfg, distributed=True)
    assert cfg.model_wrapper_cfg == dict(type='MMDistributedDataParallel', static_graph=True, device_ids=None)


def test_accelerators_leave_the_config_to_mmengine(monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    for name, value in dict(RANK='0', WORLD_SIZE='2', LOCAL_RANK='0', LOCAL_WORLD_SIZE='2').items():
        monkeypatch.setenv(name, value)
    cfg = config()
    before = copy.deepcopy(cfg)
    launch.prepare_device(cfg, 'pytorch')
    before.launcher = 'pytorch'
    assert cfg.to_dict() == before.to_dict()
    assert not torch.distributed.is_initialized()


def test_more_processes_than_gpus_is_an_error(monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    for name, value in dict(RANK='0', WORLD_SIZE='2', LOCAL_RANK='0', LOCAL_WORLD_SIZE='2').items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match='2 processes.*1 GPU.*CUDA_VISIBLE_DEVICES'):
        launch.prepare_device(config(), 'pytorch')


def test_children_use_this_python(monkeypatch):
    """Another PYTHON, e.g. that of `make demo PYTHON=…`, builds the environment and must not run what is in it."""
    monkeypatch.setenv('PYTHON', '/usr/bin/python3')
    monkeypatch.setenv('MALLOC_TRIM_THRESHOLD_', '7')
    environment = launch.child_environment(dict(OMP_NUM_THREADS='3'))
    assert environment['PYTHON'] == sys.executable and environment['PATH'].startswith(os.path.dirname(sys.executable))
    assert environment['MALLOC_TRIM_THRESHOLD_'] == '7', "the user's word counts"
    assert environment['OMP_NUM_THREADS'] == '3'


def test_the_first_node_is_asked_for_where_nobody_says_it(clean_environment, tmp_path):
    """Containers in a Slurm allocation have no scontrol."""
    addresses = []

    def opened(*_, **__):
        addresses.append(os.environ.pop('MASTER_ADDR'))

    clean_environment.setattr(launch.torch_dist, 'init_process_group', opened)
    ranks = launch.Ranks(0, 1, 0, 1)
    clean_environment.setenv('PATH', str(tmp_path))
    clean_environment.setenv('SLURM_NODELIST', 'node[1-2]')
    with pytest.raises(ValueError, match=r"scontrol.*'node\[1-2\]'.*MASTER_ADDR"):
        launch.init_gloo(ranks)
    clean_environment.setenv('SLURM_NNODES', '1')
    launch.init_gloo(ranks)
    clean_environment.setenv('SLURM_NNODES', '2')
    clean_environment.setenv('MASTER_ADDR', 'node7')
    launch.init_gloo(ranks)
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostname node[1-2]" ] && echo node1 && echo node2\n')
    scontrol.chmod(0o755)
    launch.init_gloo(ranks)
    assert addresses == ['127.0.0.1', 'node7', 'node1']


def test_a_closed_gloo_group_is_not_destructed(tmp_path):
    """Its destructor can wait for ever for a thread that waits for the GIL."""
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/init', rank=0, world_size=1)
    group = weakref.ref(dist.group.WORLD)
    launch.close_device()
    gc.collect()
    assert not dist.is_initialized()
    assert group() is not None
    launch.close_device()  # nothing is left to close


def test_stages_are_frozen_before_the_model_is_wrapped(tmp_path):
    """MMPretrain's backbones freeze them in train() only; two processes then failed at the second iteration."""
    toy = "backbone=dict(type='mmengine.ToyBackbone')"
    assert toy in CONFIG
    arch = 'arch=dict(embed_dims=2, depths=[1, 1], num_heads=[1, 1]), out_indices=(1,), pad_small_map=True'
    config = CONFIG.replace(toy, f"backbone=dict(type='mmpretrain.SwinTransformer', {arch}, frozen_stages=0)")
    codes, outputs = train(tmp_path / 'work', config=config, processes=2, CUDA_VISIBLE_DEVICES='')
    assert codes == [0, 0], outputs
    first, last = (load(tmp_path / f'work/iter_{iteration}.pth')['state_dict'] for iteration in (4, 9))
    still = [key for key, value in first.items() if torch.equal(value, last[key])]
    for part, frozen in (('patch_embed', True), ('stages.0', True), ('stages.1', False), ('norm1', False)):
        keys = [key for key in first if key.startswith(f'backbone.{part}') and not key.endswith('index')]
        assert keys and all((key in still) == frozen for key in keys), part


def test_compile_is_for_the_backbone_and_leaves_names_as_they_are(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, 'compile', lambda function: compiled.append(function) or function)
    (tmp_path / 'toy.py').write_text(CONFIG)
    cfg = Config.fromfile(tmp_path / 'toy.py')
    cfg.work_dir = str(tmp_path)
    plain = Runner.from_cfg(cfg).model
    assert compiled == []
    run_config.enable_compile(cfg)
    cfg.experiment_name = 'compiled'
    model = Runner.from_cfg(cfg).model
    assert [function.__self__ for function in compiled] == [model.backbone]
    assert list(model.state_dict()) == list(plain.state_dict())
    with pytest.raises(ValueError, match='--compile: the config has no model.backbone'):
        run_config.enable_compile(Config(dict(model=dict(type='Wrapper'))))
