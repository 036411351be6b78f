"""tools/dist_train.sh and dist_test.sh run two processes on a CPU machine, with a config for GPUs as it is."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy_world
from mmengine.runner import set_random_seed

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='these runs are for a machine without GPUs')


def run(script, *args, **environment):
    """Run a script of tools/ as a user does; returns the finished process."""
    env = {key: value for key, value in os.environ.items() if key not in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'PORT')}
    env.update(PYTHON=sys.executable, PYTHONPATH=str(Path(toy_world.__file__).parent), OMP_NUM_THREADS='1')
    env.update(environment)
    return subprocess.run(
        ['bash', str(TOOLS / script), *map(str, args)], env=env, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Folder of one training with two processes, which started without a PORT."""
    folder = tmp_path_factory.mktemp('dist_train')
    (folder / 'toy.py').write_text(toy_world.CONFIG)
    done = run('dist_train.sh', folder / 'toy.py', 2, '--work-dir', folder / 'work', TOY_LOG=str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_share_every_epoch(trained):
    ranks = [[line.split() for line in (trained / f'rank{rank}.txt').read_text().splitlines()] for rank in (0, 1)]
    assert len(ranks[0]) == len(ranks[1]) == toy_world.SIZE // 4
    assert sorted(int(value) for rank in ranks for line in rank for value in line[:2]) == list(range(toy_world.SIZE))
    assert {tuple(line[2:]) for rank in ranks for line in rank} == {('_BatchNormXd', '1', 'gloo')}


def test_gradients_are_averaged(trained):
    """The weights are those of one process with the same two batches of all ranks."""
    set_random_seed(0)
    model = toy_world.ToyModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in ((0, 2, 1, 3), (4, 6, 5, 7)):
        optimizer.zero_grad()
        model([torch.full((3,), float(index)) for index in batch], mode='loss')['loss'].backward()
        optimizer.step()
    found = torch.load(trained / 'work/epoch_1.pth', weights_only=False)['state_dict']
    torch.testing.assert_close(found, dict(model.state_dict()))
    exported = torch.load(trained / 'work/backbone_latest.pth', weights_only=True)
    assert exported['meta']['iter'] == 2 and all(torch.equal(exported['state_dict'][key], found[key]) for key in found)


def test_test_counts_every_sample_once(trained):
    out, dump = trained / 'metrics.json', trained / 'predictions.pkl'
    flags = ['--work-dir', trained / 'work', '--out', out, '--dump', dump]
    done = run('dist_test.sh', trained / 'toy.py', trained / 'work' / 'epoch_1.pth', 2, *flags)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(out.read_text())
    assert metrics['toy/count'] == toy_world.SIZE
    assert done.stdout.count('toy/count') == 2  # the log's line and the printed metrics, from one process only
    predictions = pickle.loads(dump.read_bytes())
    assert len(predictions) == toy_world.SIZE
    assert sum(item['y'] for item in predictions) == pytest.approx(metrics['toy/sum'])


def test_exit_code_of_a_failed_process_is_passed_on(tmp_path):
    (tmp_path / 'toy.py').write_text(toy_world.CONFIG.replace("'ToyModel'", "'NoSuchModel'"))
    done = run('dist_train.sh', tmp_path / 'toy.py', 2, '--work-dir', tmp_path / 'work')
    assert done.returncode != 0
    assert 'NoSuchModel' in done.stderr


@pytest.mark.parametrize(
    'script, args, message',
    [
        ('dist_train.sh', ['nothing.py', 2], "dist_train.sh: error: CONFIG: there is no file 'nothing.py'"),
        ('dist_train.sh', [__file__, 'two'], "dist_train.sh: error: GPUS is 'two'"),
        ('dist_test.sh', [__file__, 'nothing.pth', 2], "error: CHECKPOINT: there is no file 'nothing.pth'"),
        ('slurm_train.sh', ['partition', 'job', __file__], 'usage: '),
    ],
)
def test_wrong_arguments_are_named_in_one_line(script, args, message):
    done = run(script, *args)
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_missing_interpreter_is_named():
    done = run('dist_train.sh', __file__, 2, PYTHON='no-such-python')
    assert done.returncode == 2 and "'no-such-python'" in done.stderr


@pytest.fixture
def srun(tmp_path):
    """Call a Slurm script with an srun that prints its arguments."""
    (tmp_path / 'srun').write_text('#!/bin/sh\necho srun "$@"\nexit 7\n')
    (tmp_path / 'srun').chmod(0o755)
    return lambda *args, **environment: run(*args, PATH=f'{tmp_path}:{os.environ["PATH"]}', **environment)


@pytest.mark.parametrize(
    'script, arguments, passed_on',
    [
        ('slurm_train.sh', ['c.py', 'work', '--amp'], 'c.py --work-dir=work --launcher=slurm --amp'),
        ('slurm_test.sh', ['c.py', 'e.pth', '--out', 'a b.json'], 'c.py e.pth --launcher=slurm --out a b.json'),
    ],
)
def test_slurm_scripts_call_srun(srun, script, arguments, passed_on):
    resources = dict(GPUS='2', GPUS_PER_NODE='2', SRUN_ARGS='--mem=8G --time=1:00')
    done = srun(script, 'part', 'job', *arguments, **resources)
    assert done.stdout.strip() == (
        'srun -p part --job-name=job --ntasks=2 --cpus-per-task=5 --gres=gpu:2 --ntasks-per-node=2 '
        f'--kill-on-bad-exit=1 --mem=8G --time=1:00 {sys.executable} -u '
        f'{TOOLS}/{script[6:-3]}.py {passed_on}'
    )
    assert done.returncode == 7


def test_processes_share_the_cores_of_a_machine():
    """More processes than cores get one thread each."""
    cores = len(os.sched_getaffinity(0))
    command = ['bash', '-c', f'source {TOOLS}/dist_common.sh; cores_for 1; cores_for {cores + 1}']
    done = subprocess.run(command, env=dict(os.environ, PYTHON=sys.executable), capture_output=True, text=True)
    assert done.stdout.split() == [str(cores), '1'], done.stderr
