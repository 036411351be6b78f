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
from toy_training import CONFIG, load, train, without_gpu  # noqa: F401  a fixture

from mmnfn.engine.hooks import ResumeEpochHook
from mmnfn.engine.hooks.resume import ResumeError, compare_training

PRETRAINING = Path(__file__).resolve().parents[2] / 'configs/nfn/pretrain_nsd.py'
ITERATIONS = {1: 15, 2: 9}  # of 3 epochs, by number of processes


def trained(work, *options, **kwargs):
    """Train without an error; return what rank 0 printed."""
    codes, outputs = train(work, *options, **kwargs)
    assert not any(codes), '\n'.join(outputs)
    return outputs[0]


def seen(work, first, processes=1):
    """List what each rank trained on from an iteration on, as written last."""
    lines = [(work / f'rank{rank}.txt').read_text().splitlines() for rank in range(processes)]
    return [[line for line in own if int(line.split()[0]) >= first] for own in lines]


def assert_same_end(unbroken, resumed, iteration=15):
    one, two = (load(work / f'iter_{iteration}.pth') for work in (unbroken, resumed))
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


def test_resume_continues_at_the_same_batch(unbroken, tmp_path):
    """In the middle of an epoch, with the order of the interrupted run whatever seed the config has by then."""
    output = trained(tmp_path / 'work', 'randomness.seed=7', resume=[unbroken / 'iter_8.pth'])
    assert '3 batches of epoch 2 are left out' in output
    assert seen(tmp_path / 'work', 0) == seen(unbroken, 8)
    assert_same_end(unbroken, tmp_path / 'work')


def test_run_killed_at_any_iteration_ends_like_the_unbroken_one(unbroken, tmp_path):
    """The killed run does not validate, so this also shows that validation does not change what is trained."""
    iteration = random.SystemRandom().randrange(4, 15)
    codes, _ = train(tmp_path / 'work', 'val_cfg=None', 'val_dataloader=None', 'val_evaluator=None', TOY_KILL=iteration)
    assert codes == [-signal.SIGKILL], iteration
    trained(tmp_path / 'work', resume=[])
    assert seen(tmp_path / 'work', 0)[0][iteration:] == seen(unbroken, iteration // 4 * 4)[0], iteration
    assert_same_end(unbroken, tmp_path / 'work')


def test_two_processes_killed_at_any_iteration(tmp_path):
    trained(tmp_path / 'unbroken', processes=2)
    states = load(tmp_path / 'unbroken' / 'iter_4.pth')['mmnfn_resume']['random_states']
    assert len(states) == 2 and not torch.equal(states[0]['torch'], states[1]['torch'])
    iteration = random.SystemRandom().randrange(4, 9)
    codes, _ = train(tmp_path / 'work', processes=2, TOY_KILL=iteration)
    assert codes[0] == -signal.SIGKILL and all(codes), iteration
    trained(tmp_path / 'work', processes=2, resume=[])
    for kept, again in zip(seen(tmp_path / 'work', 0, 2), seen(tmp_path / 'unbroken', iteration // 4 * 4, 2)):
        assert kept[iteration:] == again, iteration
    assert_same_end(tmp_path / 'unbroken', tmp_path / 'work', 9)


def test_workers_draw_the_numbers_of_the_unbroken_run(tmp_path):
    """Whether they live on or not, at the end of an epoch and in its middle."""
    workers = 'train_dataloader.num_workers=2'
    trained(tmp_path / 'unbroken', workers, 'train_dataloader.persistent_workers=True')
    train(tmp_path / 'end', workers, 'default_hooks.checkpoint.interval=5', TOY_KILL=10)
    output = trained(tmp_path / 'end', workers, resume=[tmp_path / 'end/iter_5.pth'])
    assert '5 batches of epoch 1 are left out' in output
    output = trained(tmp_path / 'middle', workers, resume=[tmp_path / 'unbroken/iter_8.pth'])
    assert '3 batches of epoch 2 are left out' in output
    for work in ('end', 'middle'):
        assert_same_end(tmp_path / 'unbroken', tmp_path / work)


@pytest.mark.parametrize('workers', [0, 2])
def test_training_by_iterations_is_resumed_exactly(tmp_path, workers):
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


@pytest.mark.parametrize('iteration, read', [(7, []), (6, list(range(6)))])
def test_training_by_iterations_that_is_over_reads_nothing(iteration, read):
    """MMEngine would go through all of its batches once more: hours for 160,000 of ADE20K."""
    found = []
    loop = SimpleNamespace(max_iters=7, dataloader=SimpleNamespace(), dataloader_iterator=map(found.append, range(7)))
    ResumeEpochHook().before_train_epoch(SimpleNamespace(iter=iteration, epoch=0, seed=0, train_loop=loop))
    for _ in range(iteration):  # as the loop does
        assert next(loop.dataloader_iterator) is None
    assert found == read


def test_killed_while_writing_a_checkpoint(unbroken, tmp_path):
    """Only the newest checkpoint is kept, and the process dies in the middle of writing the second."""
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
    assert 'the number of processes is 2 and was 1' in output
    assert [len(lines) for lines in seen(tmp_path / 'work', 0, 2)] == [3, 3]


def without(checkpoint, path, *keys):
    """Write a copy of a checkpoint that lacks some entries."""
    torch.save({key: value for key, value in load(checkpoint).items() if key not in keys}, path)
    return [path]


def test_checkpoint_of_mmengines_hook_has_the_right_batches(unbroken, tmp_path):
    """It holds no random numbers, which is said."""
    resume = without(unbroken / 'iter_12.pth', tmp_path / 'plain.pth', 'mmnfn_resume')
    assert 'holds no state of the random numbers' in trained(tmp_path / 'work', resume=resume)
    assert seen(tmp_path / 'work', 0) == seen(unbroken, 12)
    one, two = (load(work / 'iter_15.pth')['state_dict'] for work in (unbroken, tmp_path / 'work'))
    assert any(not torch.equal(one[key], two[key]) for key in one), 'the model draws no random numbers'


@pytest.mark.parametrize(
    'iteration, missing', [(12, ('optimizer', 'param_schedulers', 'mmnfn_resume')), (15, ('optimizer',))]
)
def test_weights_alone_are_resumed_only_when_training_is_over(unbroken, tmp_path, iteration, missing):
    """Else training would begin anew with them, and say that it goes on. The demo's last checkpoint is without."""
    resume = without(unbroken / f'iter_{iteration}.pth', tmp_path / 'weights.pth', *missing)
    codes, outputs = train(tmp_path / 'work', resume=resume)
    assert not (tmp_path / 'work/rank0.txt').exists(), 'nothing is trained'
    if iteration < 15:
        assert codes == [2] and f'--resume: {tmp_path}/weights.pth has weights, but no {missing[0]}' in outputs[0]
    else:
        assert codes == [0], outputs[0]


DATASET = 'train_dataloader.dataset.'


@pytest.mark.parametrize(
    'key, here, there',
    [
        (DATASET + 'subjects', [1, 2], [1, 2, 3, 4, 5, 6, 7]),
        (DATASET + 'shuffle_pairs', 0, None),
        ('model.guidance.negatives', 'roi', 'roi+batch'),
        ('model.loss_weight.bfg', 0.5, 1.0),
        ('optim_wrapper.optimizer.type', 'SGD', 'AdamW'),
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
    cfg = Config.fromfile(PRETRAINING)
    text = cfg.pretty_text
    options = {'num_workers': 0, 'batch_size': 32, 'dataset.data_root': '/mnt/nsd'}
    options = {f'train_dataloader.{key}': value for key, value in options.items()}
    options.update({'optim_wrapper.optimizer.lr': 3e-4, 'param_scheduler.1.eta_min': 0.0})
    options.update({'optim_wrapper.clip_grad': None, 'optim_wrapper.type': 'AmpOptimWrapper'})
    options.update({'val_dataloader.dataset.subjects': [1], 'val_evaluator': None, 'model.backbone.with_cp': True})
    cfg.merge_from_dict(options)
    assert compare_training(text, cfg, 'epoch_5.pth') == (
        [],
        [
            'optim_wrapper.optimizer.lr (0.0001 there, 0.0003 here)',
            'param_scheduler.1.eta_min (1e-06 there, 0.0 here)',
        ],
    )


def test_weights_that_a_training_began_with_may_be_moved():
    """But not be another row's, as of a control."""
    cfg = Config(dict(model=dict(init_cfg=dict(checkpoint='work_dirs/pretrain_nsd/backbone_latest.pth'))))
    text = cfg.pretty_text
    cfg.model.init_cfg.checkpoint = '/a/pretrain_nsd/backbone_latest.pth'
    compare_training(text, cfg, 'a.pth')
    cfg.model.init_cfg.checkpoint = 'work_dirs/pretrain_nsd_shuffled/backbone_latest.pth'
    with pytest.raises(ResumeError, match='model.init_cfg.checkpoint'):
        compare_training(text, cfg, 'a.pth')


def test_the_learning_rate_and_schedule_of_the_checkpoint_stay(unbroken, tmp_path):
    options = ('optim_wrapper.optimizer.lr=0.5', 'param_scheduler.0.eta_min=0.3')
    output = trained(tmp_path / 'work', *options, resume=[unbroken / 'iter_8.pth'])
    assert 'optim_wrapper.optimizer.lr (0.01 there, 0.5 here); param_scheduler.0.eta_min (None there, 0.3' in output
    assert_same_end(unbroken, tmp_path / 'work')


def test_a_longer_training_follows_its_own_schedule(unbroken, tmp_path):
    """A cosine over 30 iterations instead of 15, from the ninth on: as 30 iterations from the beginning have it."""
    options = ('train_cfg.max_epochs=6', 'param_scheduler.0.end=6', 'optim_wrapper.optimizer.lr=0.5')
    output = trained(tmp_path / 'work', *options, resume=[unbroken / 'iter_8.pth'])
    assert 'train_cfg.max_epochs (3 there, 6 here)' in output
    for iteration in (12, 20, 28):
        groups = load(tmp_path / f'work/iter_{iteration}.pth')['optimizer']['param_groups']
        right = 0.005 * (1 + math.cos(math.pi * iteration / 30))
        assert all(group['lr'] == pytest.approx(right) for group in groups)
