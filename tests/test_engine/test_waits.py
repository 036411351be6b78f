"""How often a training step would wait for an accelerator, counted on the CPU.

Each tensor whose value the processor asks for (``item``, ``float``, ``tolist`` of one number, a condition) dispatches
``_local_scalar_dense``; operators whose output size depends on values wait, too.
"""

from collections import Counter

import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils._python_dispatch import TorchDispatchMode
from toy_training import CONFIG, without_gpu  # noqa: F401

WAITING = ('_local_scalar_dense', 'nonzero', 'unique', 'masked_select', 'bincount', 'equal', 'is_nonzero')


class CountWaits(TorchDispatchMode):
    """Counts the calls of operators for which an accelerator must have finished."""

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if any(name.lstrip('_').startswith(waiting.lstrip('_')) for waiting in WAITING):
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A finished training of two epochs of nine iterations, and the waits of each iteration, hooks included."""
    work = tmp_path_factory.mktemp('waits')
    (work / 'toy.py').write_text(CONFIG)
    cfg = Config.fromfile(work / 'toy.py')
    cfg.work_dir = str(work)
    cfg.model.fmri_encoder.adapter = dict()
    cfg.train_dataloader.update(
        batch_size=2, batch_sampler=dict(cfg.train_dataloader.batch_sampler, subjects_per_step=2)
    )
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.01)  # AdamW counts its steps on the processor
    cfg.train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=5)
    cfg.default_hooks = dict(runtime_info=dict(type='mmnfn.IntervalInfoHook'), checkpoint=None)
    cfg.custom_hooks = [dict(type='mmnfn.ResumeEpochHook'), dict(type='mmnfn.NonFiniteLossHook')]
    runner = Runner.from_cfg(cfg)
    counts = []

    def counted(method):
        def run(*args, **kwargs):
            with CountWaits() as waits:
                result = method(*args, **kwargs)
            counts.append(waits.count)
            return result

        return run

    loop = runner.build_train_loop(cfg.train_cfg)
    loop.run_iter = counted(loop.run_iter)
    runner._train_loop = loop
    runner.train()
    return runner, counts


def test_a_step_waits_at_most_twice_outside_the_logging_interval(trained):
    counts = [sum(count.values()) for count in trained[1]]
    assert len(counts) >= 16
    epoch = len(counts) // 2
    assert 1 <= max(counts[1 : epoch - 1]) <= 2, trained[1][1]


def test_the_history_of_losses_has_every_iteration(trained):
    runner, counts = trained
    for name in ('loss', 'loss_con', 'loss_bfg', 'temperature'):
        values, _ = runner.message_hub.get_scalar(f'train/{name}').data
        assert len(values) == len(counts) and len(set(values)) > 6
