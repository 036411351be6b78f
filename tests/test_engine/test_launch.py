"""Start-up of a process: ranks, the process group, and what the Runner does to the model."""

import gc
import os
import sys
import weakref

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from toy_training import CONFIG, load, train, without_gpu  # noqa: F401  a fixture

from mmnfn.engine import launch
from mmnfn.engine.launch import Runner
from mmnfn.utils import UserError


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No launcher's variables; what the code under test sets is undone."""
    for name in (*sum(launch.VARIABLES.values(), ()), 'LOCAL_WORLD_SIZE', 'SLURM_NNODES', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize('launcher', launch.VARIABLES)
def test_ranks_come_from_the_launchers_environment(launcher, environment):
    rank, size, local = launch.VARIABLES[launcher]
    with pytest.raises(UserError, match=f'--launcher {launcher}: the environment variable {rank} is not set'):
        launch.read_ranks(launcher)
    assert launch.is_first_process() and launch.is_first_of_machine()
    for name, value in ((rank, '5'), (size, '8'), (local, '0')):
        environment.setenv(name, value)
    assert launch.read_ranks(launcher) == (5, 8, 0)
    assert launch.is_first_of_machine() and not launch.is_first_process()


def test_cpu_run_of_a_config_with_amp_is_in_float32():
    wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16', optimizer=dict(type='SGD'))
    cfg = Config(dict(optim_wrapper=wrapper))
    assert launch.prepare_device(cfg, 'none') == 1
    assert cfg.optim_wrapper == dict(type='OptimWrapper', optimizer=dict(type='SGD')) and cfg.launcher == 'none'


@pytest.mark.parametrize('gpus', [1, 2])
def test_a_gpu_runs_one_process(gpus, environment):
    environment.setattr(launch, 'get_device', lambda: 'cuda')
    environment.setattr(torch.cuda, 'device_count', lambda: gpus)
    for name, value in dict(RANK='0', WORLD_SIZE='2', LOCAL_RANK='0', LOCAL_WORLD_SIZE='2').items():
        environment.setenv(name, value)
    cfg = Config(dict(optim_wrapper=dict(type='AmpOptimWrapper')))
    if gpus == 1:
        with pytest.raises(UserError, match=r'2 processes.*1 GPU.*CUDA_VISIBLE_DEVICES'):
            launch.prepare_device(cfg, 'pytorch')
    else:
        assert launch.prepare_device(cfg, 'pytorch') == 2
        assert cfg.optim_wrapper.type == 'AmpOptimWrapper' and not dist.is_initialized(), 'left to MMEngine'


def test_children_use_this_python(monkeypatch):
    """Another PYTHON, e.g. that of `make demo PYTHON=…`, builds the environment and must not run what is in it."""
    monkeypatch.setenv('PYTHON', '/usr/bin/python3')
    monkeypatch.setenv('MALLOC_TRIM_THRESHOLD_', '7')
    environment = launch.child_environment(dict(OMP_NUM_THREADS='3'))
    assert environment['PYTHON'] == sys.executable and environment['PATH'].startswith(os.path.dirname(sys.executable))
    assert environment['MALLOC_TRIM_THRESHOLD_'] == '7', "the user's word counts"
    assert environment['OMP_NUM_THREADS'] == '3'


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
    cfg.compile_backbone, cfg.experiment_name = True, 'compiled'
    model = Runner.from_cfg(cfg).model
    assert [function.__self__ for function in compiled] == [model.backbone]
    assert list(model.state_dict()) == list(plain.state_dict())


def test_slurm_is_asked_for_the_first_of_several_nodes(environment, tmp_path):
    addresses = []
    environment.setattr(dist, 'init_process_group', lambda *_, **__: addresses.append(os.environ.pop('MASTER_ADDR')))
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostname node[1-2]" ] && echo node1 && echo node2\n')
    scontrol.chmod(0o755)
    environment.setenv('PATH', str(tmp_path))
    for name, value in dict(SLURM_PROCID='0', SLURM_NTASKS='2', SLURM_LOCALID='0', SLURM_NODELIST='node[1-2]').items():
        environment.setenv(name, value)
    for nodes, address in (('1', ''), ('2', ''), ('2', 'node7')):
        environment.setenv('SLURM_NNODES', nodes)
        environment.setenv('MASTER_ADDR', address)
        launch.prepare_device(Config({}), 'slurm')
    assert addresses == ['127.0.0.1', 'node1', 'node7']
