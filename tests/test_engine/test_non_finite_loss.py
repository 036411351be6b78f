"""Training stops at a loss that is NaN or infinite, on all ranks, and leaves what reproduces it."""

import math
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from toy_training import CONFIG, load, train, without_gpu  # noqa: F401  a fixture

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
