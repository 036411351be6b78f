"""Measure how fast the betas of some voxels are read, against other loaders.

Baselines, all in this process and on the same full-size session file (81×104×83 voxels, 750 trials, 1.05 GB), which is
in memory: ``betas[:]`` and then a mask (as public Python loaders do), the ``.nii.gz`` file through nibabel and then a
mask, and a plain read of as many bytes as the voxels have.

Example:
    python benchmarks/read_betas.py --json read_betas.json
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
from measure import in_own_process, peak_memory, read_arguments, save
from release import SHAPE, SUBJECT, cortical_masks, write_release

from mmnfn.nsd.betas import read_betas
from mmnfn.nsd.release import TRIALS_PER_SESSION, NSDLayout


def fastest(function, times):
    """Return the seconds of the fastest of some calls, and the last result."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def measure_memory(root: Path, store: Path) -> None:
    """Print the memory for making a store, in MB above the imported libraries, and the seconds."""
    from mmnfn.nsd.preparation import Extraction, prepare_subject

    Extraction._refuse_copy = lambda *_: None  # all sessions here are links to one file
    before, start = peak_memory(), time.perf_counter()
    prepare_subject(NSDLayout(root), store, SUBJECT, progress=False)
    print(json.dumps([peak_memory() - before, time.perf_counter() - start]))


def main() -> None:
    """Run everything and print it."""
    args = read_arguments(
        __doc__,
        ('--folder', dict(type=Path, help='where to work; about 8 GB for a while')),
        ('--memory', dict(nargs=2, type=Path, help=argparse.SUPPRESS)),
    )
    if args.memory:
        measure_memory(*args.memory)
        return
    ratios, ours = {}, []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        root = Path(folder) / 'nsd'
        layout = write_release(root, sessions=40, nifti=True)
        path, nifti = layout.beta_file(SUBJECT, 1), layout.beta_file(SUBJECT, 1, 'nii.gz')
        for key, name in (('15k', 'nsdgeneral'), ('union', 'union')):
            mask = cortical_masks()[name].transpose(2, 1, 0)
            index = np.argwhere(mask)[:, ::-1]

            def whole_session(mask=mask):
                with h5py.File(path, 'r') as file:
                    return file['betas'][()][:, mask]

            buffer = bytearray(len(index) * TRIALS_PER_SESSION * 2)

            def plain_read(buffer=buffer):
                with open(path, 'rb', buffering=0) as file:
                    assert file.readinto(buffer) == len(buffer)

            slow, expected = fastest(whole_session, 2)
            fast, found = fastest(lambda index=index: read_betas(path, index, SHAPE), 5)
            ours.append((len(index), fast))
            plain, _ = fastest(plain_read, 5)
            assert (found.T == expected).all()
            ratios[f'speedup_{key}'] = slow / fast
            ratios[f'fraction_of_plain_read_{key}'] = plain / fast
            print(
                f'{len(index)} voxels: whole session, then mask {slow:.2f} s; ours {1000 * fast:.0f} ms: '
                f'{slow / fast:.0f} times as fast. A plain read of as many bytes takes {1000 * plain:.1f} ms, '
                f'{plain / fast:.2f} of ours.'
            )
            if key == '15k':
                expected = found
                slow, volumes = fastest(lambda: np.asarray(nib.load(nifti).dataobj), 1)
                ratios['speedup_nifti'] = slow / fast
                assert (volumes[tuple(index.T)] == expected).all()
                del volumes
                print(f'{len(index)} voxels: .nii.gz through nibabel {slow:.2f} s: {slow / fast:.0f} times as fast.')
                seconds, found = fastest(lambda index=index: read_betas(nifti, index, SHAPE), 1)
                assert (found == expected).all()
                print(f'Our reading of the .nii.gz, in little memory: {seconds:.2f} s.')
        (few, first), (many, second) = ours
        slope = (second - first) / (many - few)
        ratios['us_per_voxel'], ratios['ms_per_session'] = 1e6 * slope, 1e3 * (first - slope * few)
        print(f'A session takes {ratios["ms_per_session"]:.0f} ms, and {ratios["us_per_voxel"]:.1f} µs for each voxel.')
        ratios['fraction_of_plain_read'] = ratios['fraction_of_plain_read_union']
        peak, seconds = in_own_process(__file__, ['--memory', root, Path(folder) / 'store'])
        ratios['peak_extra_mb'] = peak
        print(f'ROI store of a whole subject, 40 sessions: {seconds:.0f} s, at most {peak:.0f} MB above the libraries.')
    save(args, ratios)


if __name__ == '__main__':
    main()
