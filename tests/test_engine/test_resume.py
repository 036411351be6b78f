"""A run that is killed and resumed ends with the weights of the unbroken run, bit for bit."""

import math
import random
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from same import assert_same
from torch.utils.data import DataLoader
from toy_training import CONFIG, load, train, without_gpu  # noqa: F401  a fixture

from mmnfn.engine.hooks import ResumeEpochHook
from mmnfn.engine.hooks.resume_epoch_hook import ResumeError, compare_training
from mmnfn.engine.random_state import random_state, set_random_state

PRETRAINING = Path(__file__).resolve().parents[2] / 'configs/nfn/pretrain_nsd.py'
ITERATIONS = {1: 15, 2: 9}  # of 3 epochs, by number of processes


def trained(work, *options, **kwargs):
    """The output of rank 0 of a run that succeeds."""
    codes, outputs = train(work, *options, **kwargs)
    assert not any(codes), '\n'.join(outputs)
    return outputs[0]


def seen(work, first, processes):
    """What each rank trained on from an iteration on, as written last."""
    lines = [(work / f'rank{rank}.txt').read_text().splitlines() for rank in range(processes)]
    return [[line for line in own if int(line.split()[0]) >= first] for own in lines]


def assert_same_end(unbroken, resumed, processes=1):
    name = f'iter_{ITERATIONS[processes]}.pth'
    one, two = load(unbroken / name), load(resumed / name)
    assert 'contrastive.temperature.log_scale' in one['state_dict'] and len(one['optimizer']['state']) > 20
    for key in ('state_dict', 'optimizer', 'param_schedulers', 'mmnfn_resume'):
        assert_same(one[key], two[key], key)
    assert [one['meta'][key] for key in ('epoch', 'iter')] == [two['meta'][key] for key in ('epoch', 'iter')]


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    """Work folder of a run of one process with validation; a checkpoint every four iterations."""
    work = tmp_path_factory.mktemp('unbroken') / 'work'
    trained(work)
    return work


def test_from_a_checkpoint_in_mid_epoch(unbroken, tmp_path):
    """Whatever seed the config has by then: the order of the batches is that of the interrupted run."""
    output = trained(tmp_path / 'work', 'randomness.seed=7', resume=[unbroken / 'iter_8.pth'])
    assert '3 batches of epoch 2 are left out' in output
    assert seen(tmp_path / 'work', 0, 1) == seen(unbroken, 8, 1)
    assert_same_end(unbroken, tmp_path / 'work')


def test_killed_at_any_iteration(unbroken, tmp_path):
    """Also shows that validation does not change what is trained: the killed run has none."""
    iteration = random.SystemRandom().randrange(4, ITERATIONS[1])
    codes, _ = train(tmp_path / 'work', 'val_cfg=None', 'val_dataloader=None', 'val_evaluator=None', TOY_KILL=iteration)
    assert codes == [-signal.SIGKILL], iteration
    trained(tmp_path / 'work', resume=[])
    assert seen(tmp_path / 'work', 0, 1)[0][iteration:] == seen(unbroken, iteration // 4 * 4, 1)[0], iteration
    assert_same_end(unbroken, tmp_path / 'work')


def test_two_processes_killed_at_any_iteration(tmp_path):
    trained(tmp_path / 'unbroken', processes=2)
    states = load(tmp_path / 'unbroken' / 'iter_4.pth')['mmnfn_resume']['random_states']
    assert len(states) == 2 and not torch.equal(states[0]['torch'], states[1]['torch'])
    iteration = random.SystemRandom().randrange(4, ITERATIONS[2])
    codes, _ = train(tmp_path / 'work', processes=2, TOY_KILL=iteration)
    assert codes[0] == -signal.SIGKILL and all(codes), iteration
    trained(tmp_path / 'work', processes=2, resume=[])
    for kept, again in zip(seen(tmp_path / 'work', 0, 2), seen(tmp_path / 'unbroken', iteration // 4 * 4, 2)):
        assert kept[iteration:] == again, iteration
    assert_same_end(tmp_path / 'unbroken', tmp_path / 'work', 2)


def test_with_workers(tmp_path):
    """The workers' random numbers are those of the epoch and of the batches before, whether they live on or not."""
    options = ('train_dataloader.num_workers=2', 'default_hooks.checkpoint.max_keep_ckpts=-1')
    interval = 'default_hooks.checkpoint.interval=5'
    trained(tmp_path / 'unbroken', *options, interval, 'train_dataloader.persistent_workers=True')
    output = trained(tmp_path / 'work', *options, interval, resume=[tmp_path / 'unbroken' / 'iter_5.pth'])
    assert '5 batches of epoch 1 are left out' in output
    assert_same_end(tmp_path / 'unbroken', tmp_path / 'work')
    # In the middle of an epoch; and that the pictures are random is seen in that other workers give other weights.
    trained(tmp_path / 'often', *options)
    assert_same_end(tmp_path / 'often', tmp_path / 'work')
    output = trained(tmp_path / 'middle', *options, resume=[tmp_path / 'often' / 'iter_8.pth'])
    assert '3 batches of epoch 2 are left out' in output
    assert_same_end(tmp_path / 'often', tmp_path / 'middle')
    one_worker = 'train_dataloader.num_workers=1'
    output = trained(tmp_path / 'other', one_worker, resume=[tmp_path / 'often' / 'iter_8.pth'])
    assert 'a run with 2 dataloader workers, and now there are 1' in output
    one, two = (load(tmp_path / work / 'iter_15.pth')['state_dict'] for work in ('often', 'other'))
    assert any(not torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize('workers', [0, 2])
def test_training_by_iterations(tmp_path, workers):
    """MMEngine itself goes through the batches that were used; the random numbers are restored after that, and before
    the next batch draws some."""
    epochs = 'by_epoch=True, max_epochs=3, val_interval=1'
    assert epochs in CONFIG
    by_iterations = CONFIG.replace(epochs, "type='IterBasedTrainLoop', max_iters=7")
    by_iterations = by_iterations.replace('by_epoch=True, begin=0, end=3, convert_to_iter_based=True', 'by_epoch=False')
    options = ('param_scheduler.0.T_max=7', f'train_dataloader.num_workers={workers}')
    for work, resume in (('unbroken', None), ('work', [tmp_path / 'unbroken' / 'iter_4.pth'])):
        trained(tmp_path / work, *options, config=by_iterations, resume=resume)
    one, two = (load(tmp_path / work / 'iter_7.pth') for work in ('unbroken', 'work'))
    for key in ('state_dict', 'optimizer', 'mmnfn_resume'):
        assert_same(one[key], two[key], key)


def test_a_training_by_iterations_that_has_ended_reads_nothing():
    """MMEngine would go through all of its batches once more, which takes hours for 160,000 of ADE20K."""

    def unreadable():
        raise AssertionError('a batch was read')
        yield

    loop = SimpleNamespace(max_iters=7, dataloader=DataLoader(range(4)), dataloader_iterator=unreadable())
    ResumeEpochHook().before_train_epoch(SimpleNamespace(iter=7, epoch=0, seed=0, train_loop=loop))
    assert [next(loop.dataloader_iterator) for _ in range(7)] == [None] * 7
    loop.dataloader_iterator.skip_iter(7)  # as OneDL's loop does
    loop.dataloader_iterator = unreadable()
    ResumeEpochHook().before_train_epoch(SimpleNamespace(iter=6, epoch=0, seed=0, train_loop=loop))
    with pytest.raises(AssertionError, match='a batch was read'):
        next(loop.dataloader_iterator)


def test_killed_while_writing_a_checkpoint(unbroken, tmp_path):
    """Only the newest checkpoint is kept, and the process dies in the middle of the second."""
    work, keep = tmp_path / 'work', 'default_hooks.checkpoint.max_keep_ckpts=1'
    codes, outputs = train(work, keep, TOY_DIE_SAVING=7)
    assert codes == [-signal.SIGXFSZ], outputs
    assert 50000 == (work / '.iter_8.pth.tmp').stat().st_size < (unbroken / 'iter_8.pth').stat().st_size
    assert (work / 'last_checkpoint').read_text() == str(work / 'iter_4.pth')
    trained(work, keep, resume=[])
    assert_same_end(unbroken, work)
    assert [path.name for path in work.iterdir() if 'iter_' in path.name] == ['iter_15.pth']


def test_another_number_of_processes_is_refused_or_warned_of(unbroken, tmp_path):
    codes, outputs = train(tmp_path / 'work', processes=2, resume=[unbroken / 'iter_4.pth'])
    assert all(codes)
    assert 'train.py: error: --resume: the checkpoint is of a run with 5 batches an epoch on each of 1 p' in outputs[0]
    assert 'here there are 3 on each of 2' in outputs[0] and not (tmp_path / 'work/rank0.txt').exists()
    # Batches of 2 are 9, so 5 for each of two processes: as many as before.
    output = trained(tmp_path / 'work', 'train_dataloader.batch_size=2', processes=2, resume=[unbroken / 'iter_12.pth'])
    assert 'written by 1 process(es) and training goes on with 2' in output
    assert [len(lines) for lines in seen(tmp_path / 'work', 0, 2)] == [3, 3]


def test_checkpoint_of_mmengines_hook(unbroken, tmp_path):
    """It holds no random numbers, which is said; the batches are right."""
    checkpoint = load(unbroken / 'iter_12.pth')
    del checkpoint['mmnfn_resume']
    torch.save(checkpoint, tmp_path / 'plain.pth')
    assert 'holds no state of the random numbers' in trained(tmp_path / 'work', resume=[tmp_path / 'plain.pth'])
    assert seen(tmp_path / 'work', 0, 1) == seen(unbroken, 12, 1)
    before, after = (load(work / 'iter_15.pth')['state_dict'] for work in (unbroken, tmp_path / 'work'))
    assert any(not torch.equal(before[key], after[key]) for key in before), 'the model draws no random numbers'


@pytest.mark.parametrize(
    'missing',
    [('optimizer', 'param_schedulers', 'mmnfn_resume'), ('optimizer',), ('param_schedulers',), ('message_hub', 'meta')],
    ids=['best', 'no optimizer', 'no schedule', 'export'],
)
def test_what_has_weights_alone_is_not_resumed(unbroken, tmp_path, missing):
    """Training would begin anew with them, at the first learning rate, and say that it goes on."""
    checkpoint = load(unbroken / 'iter_12.pth')
    weights = {key: value for key, value in checkpoint.items() if key not in missing}
    torch.save(weights, tmp_path / 'weights.pth')
    codes, outputs = train(tmp_path / 'work', resume=[tmp_path / 'weights.pth'])
    assert codes == [2] and f'--resume: {tmp_path}/weights.pth has weights, but no {missing[0]}' in outputs[0]
    assert 'load_from=CHECKPOINT' in outputs[0] and not list((tmp_path / 'work').glob('*.pth'))


def test_the_last_checkpoint_of_a_training_needs_no_optimizer(unbroken, tmp_path):
    """As the demo's, which has none: a study that goes on with what is done must not fail there."""
    checkpoint = load(unbroken / 'iter_15.pth')
    del checkpoint['optimizer'], checkpoint['param_schedulers']
    torch.save(checkpoint, tmp_path / 'last.pth')
    trained(tmp_path / 'work', resume=[tmp_path / 'last.pth'])
    assert not (tmp_path / 'work/rank0.txt').exists(), 'nothing is trained'


def test_state_of_all_generators_comes_back():
    import numpy as np

    def draw():
        return random.random(), random.gauss(0, 1), np.random.randn(3).tolist(), torch.rand(3).tolist()

    before = random_state()
    draw()  # leaves half a pair of Gaussian numbers behind
    state = random_state()
    first = draw()
    set_random_state(state)
    assert draw() == first
    set_random_state(before)


@pytest.mark.filterwarnings('ignore:TypedStorage')
def test_state_can_be_read_without_trust(unbroken, tmp_path):
    """weights_only=True: torch's default from 2.6 on."""
    torch.save(load(unbroken / 'iter_4.pth')['mmnfn_resume'], tmp_path / 'state.pth')
    state = torch.load(tmp_path / 'state.pth', weights_only=True)
    assert state['world_size'] == 1
    set_random_state(state['random_states'][0])


DATASET = 'train_dataloader.dataset.'


@pytest.mark.parametrize(
    'key, here, there',
    [
        (DATASET + 'subjects', [1, 2], [1, 2, 3, 4, 5, 6, 7]),
        (DATASET + 'shuffle_pairs', 0, None),
        (DATASET + 'permute_positions', 0, None),
        (DATASET + 'split', 'all', 'train'),
        (DATASET + 'images', 'images_64.h5', 'images_224.h5'),
        ('model.guidance.negatives', 'roi', 'roi+batch'),
        ('model.loss_weight.bfg', 0.5, 1.0),
        ('model.fmri_encoder.window_size', 32, 64),
        ('optim_wrapper.optimizer.type', 'SGD', 'AdamW'),
        ('optim_wrapper.paramwise_cfg.bias_decay_mult', 1.0, 0.0),
        ('param_scheduler.1.type', 'LinearLR', 'CosineAnnealingLR'),
        ('train_cfg.max_iters', 100, None),
    ],
)
def test_another_training_is_not_resumed(key, here, there):
    cfg = Config.fromfile(PRETRAINING)
    text = cfg.pretty_text
    cfg.merge_from_dict({key: here})
    with pytest.raises(ResumeError) as error:
        compare_training(text, cfg, 'epoch_5.pth')
    assert str(error.value).startswith(
        f'--resume: epoch_5.pth is of another training: {key} ({there!r} there, {here!r} here). Resume it with'
    )


def test_what_may_differ_between_the_starts_of_a_training():
    """Other values of the optimizer's and the schedule's states stay as they were; the rest takes effect."""
    cfg = Config.fromfile(PRETRAINING)
    text = cfg.pretty_text
    options = {'num_workers': 0, 'batch_size': 32, 'dataset.data_root': '/mnt/nsd'}
    options = {f'train_dataloader.{key}': value for key, value in options.items()}
    options.update({'optim_wrapper.optimizer.lr': 3e-4, 'param_scheduler.1.eta_min': 0.0})
    options.update({'optim_wrapper.clip_grad': None, 'optim_wrapper.type': 'AmpOptimWrapper'})
    options.update({'val_dataloader.dataset.subjects': [1], 'val_evaluator': None, 'model.backbone.with_cp': True})
    options.update({'work_dir': 'elsewhere', 'default_hooks.logger.interval': 1, 'randomness.seed': 5})
    cfg.merge_from_dict(options)
    found = compare_training(text, cfg, 'epoch_5.pth')
    assert found['kept'] == [
        'optim_wrapper.optimizer.lr (0.0001 there, 0.0003 here)',
        'param_scheduler.1.eta_min (1e-06 there, 0.0 here)',
    ]
    assert {entry.split(' ')[0] for entry in found['changed']} == {'optim_wrapper.type', 'optim_wrapper.clip_grad'}
    assert found['moved'] == ["train_dataloader.dataset.data_root ('data/nsd_store' there, '/mnt/nsd' here)"]
    assert found['length'] == found['refused'] == []


@pytest.mark.parametrize(
    'there, here, same',
    [
        ('work_dirs/pretrain_nsd/backbone_latest.pth', '/a/pretrain_nsd/backbone_latest.pth', True),
        ('work_dirs/pretrain_nsd/backbone_latest.pth', 'work_dirs/pretrain_nsd_shuffled/backbone_latest.pth', False),
    ],
)
def test_weights_that_a_training_began_with(there, here, same):
    """Of a control, or the same in another place."""
    cfg = Config(dict(model=dict(backbone=dict(init_cfg=dict(checkpoint=there)))))
    text = cfg.pretty_text
    cfg.model.backbone.init_cfg.checkpoint = here
    if same:
        assert len(compare_training(text, cfg, 'a.pth')['moved']) == 1
    else:
        with pytest.raises(ResumeError, match='model.backbone.init_cfg.checkpoint'):
            compare_training(text, cfg, 'a.pth')


def test_a_refused_resume_writes_nothing(unbroken, tmp_path):
    options = ('model.guidance.negatives=roi', 'train_dataloader.dataset.trials=True')
    codes, (output,) = train(tmp_path / 'work', *options, resume=[unbroken / 'iter_8.pth'])
    assert codes == [2]
    (message,) = [line for line in output.splitlines() if line.startswith('train.py: error: ')]
    assert f'--resume: {unbroken}/iter_8.pth is of another training' in message
    assert "model.guidance.negatives ('roi+batch' there, 'roi' here)" in message
    assert 'train_dataloader.dataset.trials (None there, True here)' in message
    assert [path.name for path in (tmp_path / 'work').iterdir()] == ['output0.txt']


def learning_rate(path):
    (rate,) = {group['lr'] for group in load(path)['optimizer']['param_groups']}
    return rate


def test_the_learning_rate_of_the_checkpoint_stays(unbroken, tmp_path):
    """And its schedule: both are named."""
    options = ('optim_wrapper.optimizer.lr=0.5', 'param_scheduler.0.eta_min=0.3')
    output = trained(tmp_path / 'work', *options, resume=[unbroken / 'iter_8.pth'])
    assert 'optim_wrapper.optimizer.lr (0.01 there, 0.5 here); param_scheduler.0.eta_min (None there, 0.3' in output
    assert_same_end(unbroken, tmp_path / 'work')


def test_a_longer_training_follows_its_own_schedule(unbroken, tmp_path):
    """A cosine over 30 iterations instead of 15, from the ninth on: as 30 iterations from the beginning have it."""
    options = ('train_cfg.max_epochs=6', 'param_scheduler.0.end=6', 'optim_wrapper.optimizer.lr=0.5')
    output = trained(tmp_path / 'work', *options, resume=[unbroken / 'iter_8.pth'])
    assert 'train_cfg.max_epochs (3 there, 6 here)' in output and 'ends before the training' not in output
    assert learning_rate(unbroken / 'iter_8.pth') == pytest.approx(0.005 * (1 + math.cos(math.pi * 8 / 15)))
    for iteration in (12, 20, 28):
        right = 0.005 * (1 + math.cos(math.pi * iteration / 30))
        assert learning_rate(tmp_path / f'work/iter_{iteration}.pth') == pytest.approx(right)
    output = trained(tmp_path / 'short', 'train_cfg.max_epochs=4', resume=[unbroken / 'iter_12.pth'])
    assert 'param_scheduler ends before the training' in output
