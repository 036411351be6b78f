"""Measure what a model has learnt of the anatomy of a simulated world, against the same model with permuted anatomy.

For the test images of the config's subjects: the encoding head's own r (``head_r``); the correlation of its fields with
the true ones over prf-visualrois, averaged over subjects (``field_x``, ``field_y``, ``field_size``); the mass of the
ROI maps on faces, bodies, words and houses over that of an even map (``faces`` …). The baseline is a second checkpoint,
trained with permuted positions or ROIs; ``head_r_ratio`` is head_r over that of the baseline.

Example:
    python tools/train.py configs/demo/pretrain.py
    python tools/train.py configs/demo/pretrain.py --work-dir work_dirs/permuted \
        --cfg-options train_dataloader.dataset.permute_positions=0
    python benchmarks/anatomy.py configs/demo/pretrain.py work_dirs/pretrain/epoch_6.pth \
        --permuted positions work_dirs/permuted/epoch_6.pth
"""

import h5py
import numpy as np
import torch
from measure import read_arguments, save
from mmengine.config import Config
from mmengine.runner import Runner

CATEGORIES = {'floc-faces': 'face', 'floc-bodies': 'body', 'floc-words': 'word', 'floc-places': 'house'}


def field_recovery(model, dataset, truth):
    """Correlate the fields' x, y and size with the true ones over prf-visualrois; the mean over subjects, (3,)."""
    found = []
    for subject, geometry in dataset.geometries.items():
        count = geometry.roi_sizes[geometry.roi_names.index('prf-visualrois')]
        assert geometry.roi_names[0] == 'prf-visualrois'
        centre, width, _ = model.encoding.receptive_fields(geometry)
        voxels = dataset.stores[subject].location['voxel'][geometry.voxels[:count].numpy()]
        row = {tuple(voxel): number for number, voxel in enumerate(truth[subject]['voxel'][()])}
        true = truth[subject]['field'][()][[row[tuple(voxel)] for voxel in voxels]] * (1, -1, 1)  # there y points up
        own = np.column_stack([centre[:count].numpy(), width[:count].numpy()])
        found.append([np.corrcoef(own[:, axis], true[:, axis])[0, 1] for axis in range(3)])
    return np.mean(found, axis=0)


@torch.no_grad()
def measure(args, checkpoint, permuted=None):
    """Test a checkpoint, and compare its fields with the truth."""
    config = Config.fromfile(args.config)
    config.update(work_dir='work_dirs/anatomy', load_from=checkpoint)
    dataset = config.test_dataloader.dataset
    dataset.data_root = f'{args.data}/store'
    if permuted:
        dataset[f'permute_{permuted}'] = args.seed
    maps = dict(
        type='mmnfn.LocalizationMetric',
        categories=CATEGORIES,
        stim_info=f'{args.data}/nsd/nsddata/experiments/nsd/nsd_stim_info_merged.csv',
        annotation_dir=f'{args.data}/coco_stimuli',
    )
    config.test_evaluator = [dict(type='mmnfn.ResponseMetric', bootstraps=2), maps]
    runner = Runner.from_cfg(config)
    metrics = runner.test()
    with h5py.File(f'{args.data}/truth.h5') as truth:
        x, y, size = field_recovery(runner.model, runner.test_dataloader.dataset, truth)
    found = dict(head_r=metrics['response/pcc'], field_x=x, field_y=y, field_size=size)
    found.update((roi[len('floc-') :], metrics[f'localization/{roi}']) for roi in CATEGORIES)
    return found


def main():
    """Run everything and print it."""
    args = read_arguments(
        __doc__,
        ('config', dict(help='config of the pretraining')),
        ('checkpoint', dict(help='its checkpoint')),
        ('--permuted', dict(nargs=2, metavar=('WHAT', 'CHECKPOINT'), help='positions or rois, and the baseline')),
        ('--seed', dict(type=int, default=0, help='seed of the permutation (default: %(default)s)')),
        ('--data', dict(default='data/sim', help='the simulated world (default: %(default)s)')),
    )
    result = measure(args, args.checkpoint)
    other = measure(args, args.permuted[1], args.permuted[0]) if args.permuted else {}
    for name, value in result.items():
        print(f'{name:12}{value:8.3f}' + (f'   permuted {other[name]:8.3f}' if other else ''))
    if other:
        result.update({f'permuted_{name}': value for name, value in other.items()})
        result['head_r_ratio'] = result['head_r'] / other['head_r']
        print(f'head_r: {result["head_r_ratio"]:.2f} times the baseline')
    save(args, {name: float(value) for name, value in result.items()})


if __name__ == '__main__':
    main()
