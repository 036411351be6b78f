"""A small tree in the layout of the Algonauts 2023 training data, with an fsaverage of a few hundred vertices."""

import nibabel as nib
import numpy as np
import pandas as pd
from PIL import Image

from mmnfn.nsd.release import ROI_LABELS

SURFACE = {'lh': 300, 'rh': 310}
CHALLENGE = {'lh': 120, 'rh': 131}
IMAGE_SIDE = 64


def write_tree(root):
    """Write ``root/subj0N`` and ``root/fsaverage``; the rows of the responses are not in the order of the ids."""
    rng = np.random.default_rng(5)
    for subject, count in dict(subj01=40, subj06=33).items():
        masks = root / subject / 'roi_masks'
        fmri = root / subject / 'training_split/training_fmri'
        folder = root / subject / 'training_split/training_images'
        for path in (masks, fmri, folder):
            path.mkdir(parents=True)
        for hemisphere, size in CHALLENGE.items():
            every = np.zeros(SURFACE[hemisphere], int)
            every[rng.choice(len(every), size, replace=False)] = rng.choice([1, 1, 1, 2], size)
            np.save(masks / f'{hemisphere}.all-vertices_fsaverage_space.npy', every)
            np.save(fmri / f'{hemisphere}_training_fmri.npy', rng.normal(size=(count, size)).astype(np.float32))
            for name, labels in ROI_LABELS.items():
                mask = rng.integers(1, len(labels) + 1, size) * (rng.random(size) < 0.15)
                if name == 'floc-words' and hemisphere == 'rh':
                    mask[:] = 0
                np.save(masks / f'{hemisphere}.{name}_challenge_space.npy', mask)
        for row, image_id in enumerate(rng.choice(70, count, replace=False) + 12, 1):
            path = folder / f'train-{row:04d}_nsd-{image_id:05d}.png'
            Image.fromarray(pixels(image_id)).save(path)
    write_fsaverage(root / 'fsaverage')
    return root


def pixels(image_id):
    """The (64, 64, 3) RGB image of an id, redder than it is blue."""
    values = np.random.default_rng(int(image_id)).integers(0, 128, (IMAGE_SIDE, IMAGE_SIDE, 3))
    return (values + [127, 60, 0]).astype(np.uint8)


def positions(hemisphere):
    """(vertices, 3) mm."""
    return np.random.default_rng(len(hemisphere) + SURFACE[hemisphere]).uniform(-90, 90, (SURFACE[hemisphere], 3))


def write_fsaverage(folder):
    """``lh.white`` and ``rh.white``."""
    folder.mkdir(parents=True)
    for hemisphere in SURFACE:
        nib.freesurfer.write_geometry(folder / f'{hemisphere}.white', positions(hemisphere), np.asarray([[0, 1, 2]]))


def write_stim_info(path):
    """A table of 100 stimuli, of which those with 73k ids 0, 5, 10 … are shared."""
    ids = np.arange(100)
    table = pd.DataFrame(dict(cocoId=1000 - 7 * ids, cocoSplit='train2017', nsdId=ids, shared1000=ids % 5 == 0))
    table.sample(frac=1, random_state=0).reset_index(drop=True).to_csv(path)
    return path


def responses(root, hemisphere, subject='subj01'):
    """The file of a hemisphere's responses."""
    return root / subject / f'training_split/training_fmri/{hemisphere}_training_fmri.npy'


def mask(root, hemisphere, name, subject='subj01'):
    """The file of an ROI class, or ``all-vertices``."""
    space = 'fsaverage' if name == 'all-vertices' else 'challenge'
    return root / subject / f'roi_masks/{hemisphere}.{name}_{space}_space.npy'


def image_dir(root, subject='subj01'):
    """The folder of training images."""
    return root / subject / 'training_split/training_images'


def ceiling(test_data, subject, hemisphere):
    """The file of the published noise ceilings."""
    return test_data / subject / f'test_split/noise_ceiling/{hemisphere}_noise_ceiling.npy'


def change(path, function):
    """Change an array on disk; the name of its file."""
    np.save(path, function(np.load(path)))
    return path.name
