"""Training stops at a loss or gradient that is NaN or infinite, on all ranks, and leaves what reproduces it."""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from toy_training import CONFIG, load, train, without_gpu  # noqa: F401  a fixture

from mmnfn.engine import NonFiniteLossHook
from mmnfn.engine.random_state import random_state, set_random_state


@pytest.fixture
def same_random_numbers():
    """Undo what the test does to the generators."""
    state = random_state()
    yield
    set_random_state(state)


def the_file(work):
    """The one file that a stopped run leaves, and its iteration."""
    (path,) = work.glob('*nonfinite*')
    return load(path), int(re.fullmatch(r'nonfinite_iter_(\d+).pth', path.name).group(1))


def test_gradients_that_are_clipped_by_value_are_looked_at(tmp_path):
    """MMEngine hands on no norm of them."""
    norm, value = 'clip_grad=dict(max_norm=5.0)', "clip_grad=dict(type='value', clip_value=5.0)"
    assert norm in CONFIG
    config = CONFIG.replace(norm, value)
    codes, outputs = train(tmp_path / 'whole', 'train_cfg.max_epochs=1', config=config)
    assert codes == [0], outputs
    codes, (output,) = train(tmp_path / 'spoiled', 'train_dataloader.dataset.spoil=12', config=config)
    assert codes == [2] and 'not finite at iteration' in output


def test_spoiled_data(tmp_path, same_random_numbers):
    """Sample 12 is subject 2's; its responses are NaN."""
    work = tmp_path / 'work'
    codes, (output,) = train(work, 'train_dataloader.dataset.spoil=12', 'default_hooks.checkpoint.interval=1')
    assert codes == [2]
    state, iteration = the_file(work)
    message = [line for line in output.splitlines() if line.startswith('train.py: error: ')][0]
    epoch = (iteration - 1) // 5 + 1
    for text in (
        f'not finite at iteration {iteration} of epoch {epoch}: rank 0: loss_con=nan, loss_bfg=nan, loss_fus=nan',
        '(subj02), batch not finite in responses.',
        'Learning rate 0.0',
        str(work / f'nonfinite_iter_{iteration}.pth'),
    ):
        assert text in message
    assert 'not finite already' not in message

    # Nothing of this iteration is in the weights, and --resume goes on from the checkpoint before.
    before = work / f'iter_{iteration - 1}.pth'
    assert (work / 'last_checkpoint').read_text() == str(before)
    assert all(torch.equal(value, load(before)['state_dict'][key]) for key, value in state['state_dict'].items())
    moments = load(before)['optimizer']['state'][0]
    assert all(torch.equal(value, moments[key]) for key, value in state['optimizer']['state'][0].items())
    assert state['meta']['iter'] == iteration - 1 and state['meta']['message'] in message

    # It can be seen again, with the same random numbers (of torch: the jitter of the data has drawn from the others).
    cfg = Config.fromstring(CONFIG, '.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model).train()
    model.load_state_dict(state['state_dict'])
    (rank,) = state['ranks']
    drawn = load(before)['mmnfn_resume']['random_states'][0]['torch']
    assert torch.equal(rank['random_state']['torch'], drawn)
    assert 12 - 10 in rank['batch']['image_id'] and rank['batch']['geometry'].subject == 'subj02'

    def losses(batch):
        set_random_state(rank['random_state'])
        found = model(**model.data_preprocessor(batch, training=True), mode='loss')
        return {name: value.item() for name, value in found.items() if 'loss' in name}

    again = losses(rank['batch'])
    assert again.keys() == rank['losses'].keys() and all(math.isnan(value) for value in again.values())
    mended = dict(rank['batch'], responses=rank['batch']['responses'].nan_to_num())
    assert losses(mended) == losses(mended) and all(map(math.isfinite, losses(mended).values()))


def test_one_rank_of_two_stops_both(tmp_path):
    work = tmp_path / 'work'
    codes, outputs = train(work, processes=2, TOY_SPOIL=5)
    assert codes == [2, 2]
    state, iteration = the_file(work)
    assert iteration == 6
    messages = [line for output in outputs for line in output.splitlines() if line.startswith('train.py: error: ')]
    assert len(messages) == 1  # one process speaks for all
    first, second = re.search(r'of epoch 2: rank 0: (.*); rank 1: (.*?)\. ', messages[0]).groups()
    assert 'inf' not in first and 'loss_fus=inf' in second and 'loss_con=inf' not in second
    assert [len(rank['batch']['image_id']) > 0 for rank in state['ranks']] == [True, True]
    assert not torch.equal(*(rank['random_state']['torch'] for rank in state['ranks']))


def test_weights_that_were_spoiled_before_are_named(tmp_path):
    """A step too long makes weights infinite, and the loss of the next iteration shows it."""
    step = ('optim_wrapper.optimizer.type=SGD', 'optim_wrapper.optimizer.lr=3e38', 'optim_wrapper.clip_grad=None')
    codes, (output,) = train(tmp_path / 'work', *step)
    assert codes == [2]
    assert re.search(r'\d+ parameters were not finite already, \S+ among them', output)


@pytest.mark.parametrize('option', ['optim_wrapper.clip_grad=None', 'optim_wrapper.accumulative_counts=4'])
def test_an_infinite_gradient_stops_before_it_is_in_the_weights(tmp_path, option):
    """Iteration 6, of which the losses are finite, and not the innocent one after it; with and without clipping, and
    also where its gradient is accumulated only."""
    work = tmp_path / 'work'
    codes, (output,) = train(work, option, 'default_hooks.checkpoint.interval=5', TOY_SPOIL_GRADIENT=5)
    assert codes == [2]
    state, iteration = the_file(work)
    assert iteration == 6 and state['meta']['iter'] == 5
    found = re.search(r'error: Gradient not finite at iteration 6 of epoch 2: rank 0: (.*) \(subj0\d\)\. ', output)[1]
    assert found.count('loss_') == 3 and 'inf' not in found and 'nan' not in found
    before = load(work / 'iter_5.pth')['state_dict']
    assert (work / 'last_checkpoint').read_text() == str(work / 'iter_5.pth')
    assert all(torch.equal(value, before[key]) for key, value in state['state_dict'].items())
    assert all(torch.isfinite(value).all() for value in before.values())


def test_spoiled_weights_are_not_written(tmp_path):
    """After the last iteration, no loss would show them."""
    step = ('optim_wrapper.optimizer.type=SGD', 'optim_wrapper.optimizer.lr=3e38', 'optim_wrapper.clip_grad=None')
    codes, (output,) = train(tmp_path / 'work', *step, 'default_hooks.checkpoint.interval=1')
    assert codes == [2] and re.search(r'error: iter_1.pth is not written: \d+ of its tensors are not finite', output)
    assert not list((tmp_path / 'work').glob('*.pth')) and not (tmp_path / 'work/last_checkpoint').exists()


@pytest.mark.parametrize('scale, stops', [(2.0**15, False), (2.0**-30, True)])
def test_a_step_that_a_grad_scaler_leaves_out(tmp_path, scale, stops):
    """Infinite gradients are how it finds its scale; not any more where that has come to nothing."""
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = SimpleNamespace(
        optimizer=optimizer,
        loss_scaler=SimpleNamespace(get_scale=lambda: scale),
        get_lr=lambda: dict(lr=[0.1]),
        state_dict=optimizer.state_dict,
    )
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper, iter=7, epoch=0, train_loop=None, param_schedulers=[])
    runner.__dict__.update(work_dir=str(tmp_path), cfg=Config({}), logger=SimpleNamespace(error=print))
    hook = NonFiniteLossHook()
    hook.before_train(runner)
    hook.before_train_iter(runner, 0, dict(inputs=torch.ones(1, 2)))
    hook._losses = dict(loss=torch.ones(1))  # as of a forward pass
    model.weight.grad = torch.full((1, 2), math.inf)
    if stops:
        with pytest.raises(FloatingPointError, match='Gradient not finite at iteration 8: rank 0: loss=1'):
            hook.after_train_iter(runner, 0)
    else:
        hook.after_train_iter(runner, 0)
    assert [path.name for path in tmp_path.iterdir()] == ['nonfinite_iter_8.pth'] * stops


@pytest.mark.parametrize('library', ['mmpretrain', 'mmdet', 'mmseg'])
def test_every_runtime_has_the_hook(library):
    pytest.importorskip(library)
    path = Path(__file__).resolve().parents[2] / f'configs/_base_/runtimes/{library}.py'
    assert dict(type='mmnfn.NonFiniteLossHook') in Config.fromfile(path).custom_hooks
