"""Training stops at a loss or gradient that is NaN or infinite, on all processes, and no checkpoint has it."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from toy_training import CONFIG, load, train, without_gpu  # noqa: F401  a fixture

from mmnfn.engine import NonFiniteLossHook


def error_of(output):
    """Find the one error line of a run."""
    (line,) = [line for line in output.splitlines() if line.startswith('train.py: error: ')]
    return line


def assert_checkpoints_are_finite(work, iteration):
    """Check that a stopped run has its checkpoints up to an iteration, and that they are usable."""
    paths = sorted(work.glob('iter_*.pth'))
    assert (work / 'last_checkpoint').read_text() == str(work / f'iter_{iteration}.pth') == str(paths[-1])
    assert all(torch.isfinite(value).all() for path in paths for value in load(path)['state_dict'].values())


def test_spoiled_data_are_named(tmp_path):
    """Sample 12 is subject 2's, and its responses are NaN; --resume finds the same batch again."""
    work, options = tmp_path / 'work', ('train_dataloader.dataset.spoil=12', 'default_hooks.checkpoint.interval=1')
    codes, (output,) = train(work, *options)
    assert codes == [2]
    iteration = int(re.search(r'not finite at iteration (\d+)', output).group(1))
    message = error_of(output)
    for text in (
        f'iteration {iteration} of epoch {(iteration - 1) // 5 + 1}: rank 0: ',
        'loss_con=nan, loss_bfg=nan, loss_fus=nan (subj02), batch not finite in responses.',
        'Learning rate 0.0',
    ):
        assert text in message
    assert_checkpoints_are_finite(work, iteration - 1)
    codes, (output,) = train(work, *options, resume=[])
    assert codes == [2] and error_of(output) == message


def test_one_process_of_two_stops_both(tmp_path):
    codes, outputs = train(tmp_path / 'work', processes=2, TOY_SPOIL=5)
    assert codes == [2, 2]
    message = error_of('\n'.join(outputs))  # one process speaks for all
    first, second = re.search(r'at iteration 6 of epoch 2: rank 0: (.*); rank 1: (.*?)\. ', message).groups()
    assert 'inf' not in first and 'loss_fus=inf' in second and 'loss_con=inf' not in second


def test_an_infinite_gradient_is_in_no_checkpoint(tmp_path):
    """The losses of iteration 6 are finite, and the norm of its gradient is not."""
    codes, (output,) = train(tmp_path / 'work', 'default_hooks.checkpoint.interval=1', TOY_SPOIL_GRADIENT=5)
    assert codes == [2]
    found = re.search(r'Gradient not finite at iteration 6 of epoch 2: rank 0: (.*) \(subj0\d\)\. ', error_of(output))[
        1
    ]
    assert found.count('loss_') == 3 and 'inf' not in found and 'nan' not in found
    assert_checkpoints_are_finite(tmp_path / 'work', 5)


@pytest.mark.parametrize('clip', ['None', "dict(type='value', clip_value=5.0)"])
def test_losses_are_read_where_the_norm_of_the_gradient_is_not_known(tmp_path, clip):
    norm = 'clip_grad=dict(max_norm=5.0)'
    assert norm in CONFIG
    config = CONFIG.replace(norm, f'clip_grad={clip}')
    codes, (output,) = train(tmp_path / 'work', 'train_dataloader.dataset.spoil=12', config=config)
    assert codes == [2] and 'Loss not finite at iteration' in error_of(output)


def test_spoiled_weights_are_not_written(tmp_path):
    """A step that is much too long: no loss shows it before the checkpoint is written."""
    step = ('optim_wrapper.optimizer.type=SGD', 'optim_wrapper.optimizer.lr=3e38', 'optim_wrapper.clip_grad=None')
    codes, (output,) = train(tmp_path / 'work', *step, 'default_hooks.checkpoint.interval=1')
    assert codes == [2] and re.search(r'error: iter_1.pth is not written: \d+ of its tensors are not finite', output)
    assert not list((tmp_path / 'work').glob('*.pth')) and not (tmp_path / 'work/last_checkpoint').exists()


def test_infinite_gradients_are_left_to_a_grad_scaler():
    wrapper = SimpleNamespace(loss_scaler=SimpleNamespace(is_enabled=lambda: True), clip_grad_kwargs=dict(max_norm=1))
    history = SimpleNamespace(current=lambda: float('inf'))
    runner = SimpleNamespace(optim_wrapper=wrapper, iter=49)
    runner.message_hub = SimpleNamespace(log_scalars={'train/grad_norm': history})
    NonFiniteLossHook().after_train_iter(runner, 0, outputs=dict(loss=torch.ones(())))


@pytest.mark.parametrize('library', ['mmpretrain', 'mmdet', 'mmseg'])
def test_every_runtime_has_the_hook(library):
    pytest.importorskip(library)
    path = Path(__file__).resolve().parents[2] / f'configs/_base_/runtimes/{library}.py'
    assert dict(type='mmnfn.NonFiniteLossHook') in Config.fromfile(path).custom_hooks
