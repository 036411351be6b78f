"""Measure how fast rows and batches come out of NSDDataset.

Baseline, in this process and on the same file: NumPy fancy-indexing of the same memory map, row by row in the same
random order. The store has full size (10,000 images, 45,000 voxels in six ROI classes, float32; 1.8 GB), with images of
224 pixels; both are read once beforehand, so that they are in memory as far as they fit.

Example:
    python benchmarks/load_batches.py --json load_batches.json
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from fmri_tower import ROI_SIZES
from measure import read_arguments, save, times_in_turns
from mmengine.dataset import DefaultSampler
from torch.utils.data import DataLoader

from mmnfn.datasets import NSDDataset, SubjectBatchSampler, collate_subject_batch, subject_geometry
from mmnfn.nsd.release import ROI_CLASSES, ROILabels
from mmnfn.nsd.store import ROIStore, StoreTables, atomic_h5

IMAGES, VOXELS, SIZE, BATCH = 10000, 45000, 224, 64


def write_store(folder: Path) -> None:
    """Write ``subj01.h5`` and ``images_224.h5`` with random content."""
    rng = np.random.default_rng(0)
    ids = np.sort(rng.choice(73000, IMAGES, replace=False))
    with atomic_h5(folder / 'subj01.h5') as file:
        responses = file.create_dataset('responses', (IMAGES, VOXELS), np.float32)
        for start in range(0, IMAGES, 500):
            responses[start : start + 500] = rng.standard_normal((500, VOXELS), dtype=np.float32)
        StoreTables(
            subject='subj01',
            image_id=ids,
            repeats=np.full(IMAGES, 3),
            is_test=np.arange(IMAGES) % 10 == 0,
            seen_by_all=np.zeros(IMAGES, bool),
            coordinates=rng.uniform(0, 180, (VOXELS, 3)),
            rois={
                name: ROILabels(rng.permutation(np.arange(VOXELS) < size), {1: 'all'})
                for name, size in zip(ROI_CLASSES, ROI_SIZES)
            },
            hemisphere=np.full(VOXELS, 'lh'),
            ncsnr=np.ones(VOXELS),
            noise_ceiling=np.ones(VOXELS),
            location=dict(voxel=np.zeros((VOXELS, 3), np.int16), affine=np.eye(4)),
            attributes=dict(space='func1pt8mm'),
        ).write(file)
    with atomic_h5(folder / f'images_{SIZE}.h5') as file:
        images = file.create_dataset('images', (IMAGES, SIZE, SIZE, 3), np.uint8)
        for start in range(0, IMAGES, 500):
            images[start : start + 500] = rng.integers(0, 256, (500, SIZE, SIZE, 3), np.uint8)
        file['image_id'] = ids


def read_rows(read, order: np.ndarray) -> None:
    """Read all rows once."""
    for row in order:
        read(row)


def main() -> None:
    """Run everything and print it."""
    args = read_arguments(__doc__, ('--folder', dict(type=Path, help='where to work; 3.4 GB for a while')))
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write_store(Path(folder))
        pipeline = [dict(type='mmnfn.PackNSDInputs')]
        dataset = NSDDataset(folder, [1], f'images_{SIZE}.h5', split='all', pipeline=pipeline)
        store = ROIStore(Path(folder) / 'subj01.h5')
        voxels = subject_geometry(store, ROI_CLASSES)[1]
        responses = store.responses
        order = np.random.default_rng(1).permutation(IMAGES)
        assert (dataset.load_responses(7) == responses[7][voxels]).all()
        ways = {'numpy': lambda row: responses[row][voxels], 'dataset': dataset.load_responses}
        passes = {name: partial(read_rows, read, order) for name, read in ways.items()}
        best = {name: IMAGES / seconds for name, seconds in times_in_turns(passes).items()}
        batches = SubjectBatchSampler(DefaultSampler(dataset, shuffle=True, seed=0), BATCH)
        loader = DataLoader(dataset, batch_sampler=batches, num_workers=2, collate_fn=collate_subject_batch)
        start, count = time.perf_counter(), 0
        for batch in loader:
            count += len(batch['inputs'])
        images = count / (time.perf_counter() - start)
    ratio = best['dataset'] / best['numpy']
    print(
        f'{len(voxels)} values a row: dataset {best["dataset"]:.0f} rows/s, NumPy on the memory map '
        f'{best["numpy"]:.0f} rows/s: {ratio:.2f} of it.'
    )
    print(f'Whole pipeline, batches of {BATCH}, images of {SIZE} pixels, 2 workers: {images:.0f} images/s.')
    save(args, dict(rows_vs_memmap=ratio, images_per_second=images))


if __name__ == '__main__':
    main()
