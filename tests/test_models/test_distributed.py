"""1 to 4 gloo processes against one process with the global batch.

The ranks' batches differ in size and subject, two subjects lack a ROI, and some images are shown twice.
"""

from itertools import product

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small_configs import ENCODER, ROI_NAMES
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmnfn.engine.launch import close_device
from mmnfn.losses import correlation_loss, fmri_guided_loss, gather_features
from mmnfn.models import NeuroFusionNet
from mmnfn.structures import SubjectGeometry

BATCHES = (  # of each rank: voxels of the ROIs, image ids
    ((40, 21, 30), (1, 2, 3)),
    ((55, 0, 18), (4, 1)),
    ((33, 12, 8), (5, 4, 6, 6)),
    ((0, 25, 9), (7,)),
)
WORLD_SIZES = (1, 2, 3, 4)
CONTRASTIVE = {'contrastive': dict(temperature=0.3), 'vicreg': dict(type='mmnfn.VICRegLoss')}
LOSSES = ('loss_con', 'loss_bfg', 'loss_fus', 'loss_enc')


def build_model(contrastive):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.GELU(), nn.Conv2d(6, 6, 3, stride=2))
    return NeuroFusionNet(
        backbone=backbone,
        neck=dict(in_channels=6),
        fmri_encoder=dict(ENCODER, embed_dims=8, out_dims=8, num_queries=2, adapter=dict(num_features=4)),
        contrastive=CONTRASTIVE[contrastive],
        guidance=dict(temperature=0.5, learnable_temperature=True, negatives='roi+batch'),
        fusion=dict(embed_dims=8),
        encoding=dict(in_channels=(6,), dims=3, num_features=4, num_voxels=11),
        loss_weight=dict(con=1.0, bfg=0.7, fus=0.4, enc=0.6),
    ).double()


def rank_batch(rank):
    sizes, ids = BATCHES[rank]
    generator = torch.Generator().manual_seed(10 + rank)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return dict(
        inputs=normal(len(ids), 3, 7, 7),
        responses=normal(len(ids), sum(sizes)),
        image_id=torch.tensor(ids),
        geometry=SubjectGeometry(f'subj0{rank + 1}', ROI_NAMES, sizes, 30 * normal(sum(sizes), 3)),
        noise_ceiling=torch.linspace(-5, 60, sum(sizes)),
    )


def joined(batches):
    """Join batches into one with the groups of several subjects."""
    return dict(
        inputs=torch.cat([data['inputs'] for data in batches]),
        responses=[data['responses'] for data in batches],
        image_id=torch.cat([data['image_id'] for data in batches]),
        geometry=[data['geometry'] for data in batches],
        noise_ceiling=[data['noise_ceiling'] for data in batches],
    )


def weighted_sum(features):
    """Compute a loss in which every entry has another weight."""
    return (features.sin() * torch.arange(features.numel(), dtype=features.dtype).view_as(features)).sum()


def work(rank, folder):
    """Save losses and gradients after DDP's backward pass, in one process of each world size, with each L_con."""
    torch.set_num_threads(1)
    for contrastive, world_size in product(CONTRASTIVE, WORLD_SIZES):
        if rank >= world_size:
            continue
        dist.init_process_group(
            'gloo', init_method=f'file://{folder}/init-{contrastive}-{world_size}', rank=rank, world_size=world_size
        )
        data = rank_batch(rank)
        model = DistributedDataParallel(build_model(contrastive).train(), find_unused_parameters=False)
        torch.manual_seed(100)  # the fusion's mask
        losses = model(**data, mode='loss')
        sum(losses[name] for name in LOSSES).backward()
        own = data['responses'][:, :5].clone().requires_grad_()
        gathered = gather_features(own, rank, world_size)
        weighted_sum(gathered).backward()
        incoming = torch.full_like(gathered, rank + 1.0)
        gather_features(own.detach().requires_grad_(), rank, world_size).backward(incoming)
        torch.save(
            dict(
                losses={name: value.detach() for name, value in losses.items()},
                gradients={name: parameter.grad for name, parameter in model.module.named_parameters()},
                gathered=gathered.detach(),
                gathered_gradient=own.grad,
                incoming=incoming,
                gathered_ids=gather_features(data['image_id'], rank, world_size),
                trained=model.module.fmri_encoder.embedding.adapter.trained_subjects,
            ),
            f'{folder}/{contrastive}-{world_size}-{rank}.pth',
        )
        close_device()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('ranks')
    mp.spawn(work, (str(path),), nprocs=max(WORLD_SIZES))
    return path


def results(folder, contrastive, world_size):
    return [torch.load(folder / f'{contrastive}-{world_size}-{rank}.pth') for rank in range(world_size)]


def single_process(contrastive, world_size):
    """Compute losses and gradients of the global batch from concatenated features."""
    model = build_model(contrastive).train()
    encoded, fusion_losses, ids, present, responses = [], [], [], [], []
    for rank in range(world_size):
        data = rank_batch(rank)
        feat = model.backbone(data['inputs'])
        image = model.neck(feat)
        fmri = model.fmri_encoder(data['responses'], data['geometry'])
        torch.manual_seed(100)
        sizes = [len(ids) for _, ids in BATCHES[:world_size]]
        fusion_losses.append(model.fusion.loss(image, fmri, sizes, rank) * len(data['image_id']))
        encoded.append((image.context, fmri.context, image.rois, fmri.rois))
        model.encoding.calls = 0  # every rank draws the voxels of the first step
        responses.append(model.encoding(feat, data['responses'], data['geometry'], data['noise_ceiling']))
        ids.append(data['image_id'])
        present.append(fmri.present)
    image_context, fmri_context, image_rois, fmri_rois = (torch.cat(parts) for parts in zip(*encoded))
    ids, present = torch.cat(ids), torch.cat(present)
    losses = dict(
        loss_con=model.contrastive(image_context, fmri_context, ids),
        loss_bfg=0.7 * fmri_guided_loss(image_rois, fmri_rois, model.guidance.temperature(), present, 'roi+batch', ids),
        loss_fus=0.4 * sum(fusion_losses) / len(ids),
        loss_enc=0.6 * correlation_loss(*map(torch.cat, zip(*responses)), num_subjects=8),
    )
    sum(losses.values()).backward()
    return losses, {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize('contrastive', CONTRASTIVE)
@pytest.mark.parametrize('world_size', WORLD_SIZES)
def test_losses_and_gradients_are_those_of_one_process(folder, contrastive, world_size):
    losses, gradients = single_process(contrastive, world_size)
    ranks = results(folder, contrastive, world_size)
    for result in ranks:
        for name in ('loss_con', 'loss_bfg', 'loss_enc'):
            torch.testing.assert_close(result['losses'][name], losses[name].detach(), rtol=1e-9, atol=0)
    mean = sum(result['losses']['loss_fus'] for result in ranks) / world_size
    torch.testing.assert_close(mean, losses['loss_fus'].detach(), rtol=1e-9, atol=0)
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 1e-6, f'{name} is not tested'
        for result in ranks:
            scale = float(gradient.abs().max())
            torch.testing.assert_close(result['gradients'][name], gradient, rtol=1e-9, atol=1e-9 * scale, msg=name)


@pytest.mark.parametrize('contrastive', CONTRASTIVE)
@pytest.mark.parametrize('world_size', WORLD_SIZES)
def test_one_process_with_all_groups_in_its_batch_takes_the_same_step(folder, contrastive, world_size):
    model = build_model(contrastive).train()
    torch.manual_seed(100)
    losses = model(**joined([rank_batch(rank) for rank in range(world_size)]), mode='loss')
    sum(losses[name] for name in LOSSES).backward()
    ranks = results(folder, contrastive, world_size)
    fusion = sum(result['losses'].pop('loss_fus') for result in ranks) / world_size
    torch.testing.assert_close(losses.pop('loss_fus').detach(), fusion, rtol=1e-9, atol=0)
    for name, loss in losses.items():
        torch.testing.assert_close(loss.detach(), ranks[-1]['losses'][name], rtol=1e-9, atol=0)
    for name, parameter in model.named_parameters():
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(ranks[-1]['gradients'][name], parameter.grad, rtol=1e-9, atol=1e-9 * scale, msg=name)
    assert torch.equal(model.fmri_encoder.embedding.adapter.trained_subjects, ranks[0]['trained'])


@pytest.mark.parametrize('world_size', WORLD_SIZES)
def test_gathering_concatenates_rows_and_sums_gradients(folder, world_size):
    """The incoming gradient, which autograd may need for another branch, stays as it is."""
    batches = [rank_batch(rank) for rank in range(world_size)]
    rows = torch.cat([data['responses'][:, :5] for data in batches]).requires_grad_()
    weighted_sum(rows).backward()
    gradients = rows.grad.split([len(data['image_id']) for data in batches])
    for rank, (result, gradient) in enumerate(zip(results(folder, 'contrastive', world_size), gradients)):
        assert torch.equal(result['gathered'], rows.detach())
        assert result['gathered_ids'].tolist() == [i for data in batches for i in data['image_id'].tolist()]
        torch.testing.assert_close(result['gathered_gradient'], world_size * gradient)
        assert (result['incoming'] == rank + 1).all()
        assert result['trained'].tolist() == [1] * world_size + [0] * (8 - world_size), 'subjects of all ranks'
