"""An epoch over NSD that was interrupted goes on with exactly the batches that are left."""

import shutil

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.model import BaseModel
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from nsd_tree import CLASSES

from mmnfn.datasets import NSDDataset, SubjectBatchSampler, collate_subject_batch
from mmnfn.nsd.preparation import prepare


@pytest.fixture(scope='module')
def dataset(tiny, tmp_path_factory):
    """The test images of both subjects."""
    folder = tmp_path_factory.mktemp('stores')
    prepare(tiny, folder, ['subj01', 'subj02'], image_size=16, roi_classes=CLASSES, progress=False)
    pack = [dict(type='mmnfn.PackNSDInputs')]
    return NSDDataset(str(folder), [1, 2], 'images_16.h5', 'test', roi_names=CLASSES, pipeline=pack)


class Ranked(DefaultSampler):
    """A sampler that believes to be one of several ranks."""

    def __init__(self, dataset, rank, world_size, seed=0):
        super().__init__(dataset, True, seed)
        self.rank, self.world_size = rank, world_size


@pytest.mark.parametrize('world_size', [1, 2, 3])
def test_skipping_leaves_out_the_first_batches_once(dataset, world_size):
    for rank in range(world_size):
        sampler = SubjectBatchSampler(Ranked(dataset, rank, world_size), 16)
        whole = list(sampler)
        for count in range(len(sampler) + 1):
            sampler.skip(count)
            assert list(sampler) == whole[count:]
            assert list(sampler) == whole and len(sampler) == len(whole)  # only the next epoch is shorter
        for count in (-1, len(sampler) + 1):
            with pytest.raises(ValueError, match=f'batches is {count}; an epoch has {len(sampler)} on each rank'):
                sampler.skip(count)


class Recorder(BaseModel):
    """Remembers the images of each iteration; raises KeyboardInterrupt in one."""

    def __init__(self, stop=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.stop, self.seen = stop, []

    def forward(self, inputs, mode='tensor', **others):
        if len(self.seen) == self.stop:
            raise KeyboardInterrupt
        self.seen.append((others['geometry'].subject, others['image_id'].tolist()))
        return dict(loss=self.weight.sum())


@DATA_SAMPLERS.register_module()
class WithoutSkip(SubjectBatchSampler):
    """As the batch samplers of other libraries, whose first batches must be read to be left out."""

    skip = None


def run(dataset, work, model, resume=False, batch_sampler='mmnfn.SubjectBatchSampler'):
    runner = Runner(
        model=model,
        work_dir=str(work),
        train_dataloader=dict(
            dataset=dataset,
            sampler=dict(type='DefaultSampler', shuffle=True),
            batch_sampler=dict(type=batch_sampler),
            batch_size=16,
            collate_fn=collate_subject_batch,
            num_workers=0,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4), logger=None),
        custom_hooks=[dict(type='mmnfn.ResumeEpochHook')],
        resume=resume,
        randomness=dict(seed=5),
        experiment_name=f'{work.parent.name}_{work.name}_{resume}',
        log_level='ERROR',
    )
    try:
        runner.train()
    except KeyboardInterrupt:
        pass
    return model.seen


# Checkpoints are written after 4, 8 and 12 iterations; an epoch has as many as the sampler says.
@pytest.mark.parametrize('stop, checkpoint', [(6, 4), (11, 8), (14, 12)])
def test_a_resumed_run_sees_what_is_left(dataset, tmp_path, stop, checkpoint):
    unbroken = run(dataset, tmp_path / 'unbroken', Recorder())
    epoch = len(SubjectBatchSampler(Ranked(dataset, 0, 1), 16))
    assert len(unbroken) == 3 * epoch and epoch not in (2, 4)
    assert run(dataset, tmp_path / 'broken', Recorder(stop)) == unbroken[:stop]
    shutil.copytree(tmp_path / 'broken', tmp_path / 'read')
    assert run(dataset, tmp_path / 'broken', Recorder(), resume=True) == unbroken[checkpoint:]
    options = dict(resume=True, batch_sampler='WithoutSkip')
    assert run(dataset, tmp_path / 'read', Recorder(), **options) == unbroken[checkpoint:]
