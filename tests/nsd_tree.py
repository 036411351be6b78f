"""A release tree of NSD with a few dozen voxels, and a slow reader of such trees that shares no code with mmnfn."""

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import scipy.io

from mmnfn.nsd import NSDLayout
from mmnfn.nsd.release import ROI_LABELS

SHAPES = {'subj01': (5, 4, 6), 'subj02': (6, 4, 5)}
"""Volume (X, Y, Z)."""
CLASSES = ('prf-visualrois', 'floc-words', 'streams')
TABLES = {**ROI_LABELS, 'HCP_MMP1': ('V1', 'MST', 'V6', 'V2', 'V3', 'V3A')}
ROI_VOXELS = {'prf-visualrois': 10, 'floc-words': 5, 'streams': 12, 'nsdgeneral': 20, 'HCP_MMP1': 15}
AFFINE = np.asarray([[-1.8, 0, 0, 72], [0, 1.8, 0, -70.5], [0, 0, 1.8, -60], [0, 0, 0, 1]])
STIMULI, SHARED, OWN, PLANNED = 1500, 75, 750, 3


def save_volume(path, values, affine=AFFINE):
    """Write a NIfTI file; integers get ``scl_slope`` 0, as NSD's betas have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, affine)
    if values.dtype.kind == 'i':
        image.header['scl_slope'] = 0
    nib.save(image, path)


def read_hdf5(path):
    """(X, Y, Z, 750) betas."""
    with h5py.File(path, 'r') as file:
        return file['betas'][()].T


def save_hdf5(path, betas, dtype='<i2', chunks=(750, 1, 1, 1), **options):
    """Write (X, Y, Z, 750) betas as the dataset ``betas``."""
    path.unlink(missing_ok=True)  # it may be a link to the original
    with h5py.File(path, 'w', libver='earliest') as file:
        file.create_dataset('betas', data=betas.T.astype(dtype), chunks=chunks, **options)


def to_nifti(layout, subject):
    """Turn the session files of a subject into ``.nii.gz``."""
    for session in layout.sessions(subject):
        path = layout.beta_file(subject, session)
        save_volume(layout.beta_file(subject, session, 'nii.gz'), np.ascontiguousarray(read_hdf5(path)))
        path.unlink()


def write_tree(root, sessions=(3, 1)):
    """Write ``subj01`` and ``subj02``, their design and images.

    No subject has a VWFA-1. The right hemisphere begins in the middle of the x axis, with a layer that the left one has
    as cortex without label. Among the voxels of a subject one has no data in session 1, one none at all, one saturates,
    and one never varies.
    """
    rng = np.random.default_rng(4)
    (root / 'nsddata').mkdir(parents=True)
    layout = NSDLayout(root)
    order = rng.permutation(np.repeat(np.arange(OWN), 3))
    ids = rng.permutation(STIMULI)
    own = np.stack([np.r_[np.sort(ids[:SHARED]), ids[SHARED + 675 * k :][:675]] for k in range(2)])
    save_design(layout, order + 1, own + 1, np.sort(ids[:SHARED]) + 1)
    for number, (subject, count) in enumerate(zip(SHAPES, sessions)):
        shape = SHAPES[subject]
        cortex = rng.random(shape) < 0.6
        labels = {name: np.where(cortex, 0.0, -1.0) for name in ROI_VOXELS}
        for name, size in ROI_VOXELS.items():
            chosen = tuple(rng.choice(np.argwhere(cortex), size, replace=False).T)
            table = TABLES.get(name, ('all',))
            numbers = [k + 1 for k in range(len(table)) if table[k] != 'VWFA-1']
            labels[name][chosen] = rng.choice(numbers, size)
            save_volume(layout.roi_file(subject, name), labels[name])
            x, middle = np.indices(shape)[0], shape[0] // 2
            left = np.where(x < middle, labels[name], np.where(x == middle, np.minimum(labels[name], 0), -1))
            save_volume(layout.roi_file(subject, f'lh.{name}'), left)
            save_volume(layout.roi_file(subject, f'rh.{name}'), np.where(x < middle, -1, labels[name]))
            if name in TABLES:
                layout.label_file(subject, name).parent.mkdir(parents=True, exist_ok=True)
                lines = ['0 Unknown'] + [f'{k} {label}\t' for k, label in enumerate(table, 1)]
                layout.label_file(subject, name).write_text('\n'.join(lines) + '\n')
        ncsnr = np.where(rng.random(shape) < 0.9, rng.uniform(0.1, 1.2, shape), np.nan).astype(np.float32)
        layout.beta_dir(subject).mkdir(parents=True)
        save_volume(layout.beta_dir(subject) / 'ncsnr.nii.gz', ncsnr)
        peculiar = np.argwhere(labels['prf-visualrois'] > 0)
        signal = rng.normal(size=(*shape, OWN)) * rng.uniform(0.5, 3, (*shape, 1))
        for session in range(count):
            shown = order[750 * session :][:750]
            percent = rng.normal(0.5, 0.3, (*shape, 1)) + signal[..., shown] + rng.normal(0, 1.5, (*shape, 750))
            for k, change in enumerate((0 if session == 0 else 1, 0, 40)):
                percent[tuple(peculiar[k])] *= change
            percent[tuple(peculiar[3])] = 7
            percent[~cortex & (rng.random(shape) < 0.5)] = 0
            betas = np.clip(np.rint(percent * 300), -32768, 32767).astype(np.int16)
            save_hdf5(layout.beta_file(subject, session + 1), betas)
            save_volume(layout.valid_file(subject, session + 1), betas.any(-1).astype(np.int16))
        save_responses(layout, subject, own[number, order[: 750 * count]] + 1)
    layout.stimuli_file.parent.mkdir(parents=True)
    with h5py.File(layout.stimuli_file, 'w', libver='earliest') as file:
        file['imgBrick'] = rng.integers(0, 256, (STIMULI, 8, 8, 3), np.uint8)
    return layout


def save_design(layout, order, own, shared, **more):
    """Write the design file; everything 1-based."""
    layout.design_file.parent.mkdir(parents=True, exist_ok=True)
    variables = dict(
        masterordering=order[None].astype(np.uint16), subjectim=own.astype(np.int32), sharedix=shared[None]
    )
    content = {name: value for name, value in dict(variables, **more).items() if value is not None}
    scipy.io.savemat(layout.design_file, content, do_compression=True)  # as NSD's, which gives it checksums


def change_design(layout, **changes):
    """Replace variables of the design file, or remove those that are None; its name."""
    mat = scipy.io.loadmat(layout.design_file)
    save_design(layout, mat['masterordering'][0], mat['subjectim'], mat['sharedix'][0], **changes)
    return layout.design_file.name


def save_responses(layout, subject, ids):
    """Write the table of trials; 1-based ids."""
    path = layout.responses_file(subject)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {'SUBJECT': int(subject[-1]), 'SESSION': np.arange(len(ids)) // 750 + 1, '73KID': ids, 'RT': np.nan}
    pd.DataFrame(columns).to_csv(path, sep='\t', index=False, na_rep='NaN')


def read_voxels(path, places):
    """Betas of each voxel in a session."""
    if path.suffix == '.gz':
        whole = np.asarray(nib.load(path).dataobj)
        return [whole[place] for place in places]
    with h5py.File(path, 'r') as file:
        return [file['betas'][:, z, y, x] for x, y, z in places]


def slow_store(root, subject, classes=CLASSES, sessions=None, normalization='train'):
    """What the store of a subject must hold: name of the dataset → values, and the attributes that are numbers.

    Args:
        root: The release tree.
        subject: ``'subj01'`` or ``'subj02'``.
        classes: ROI classes.
        sessions: Number of sessions; None for all.
        normalization: As in ``prepare_subject``.
    """
    anatomy, number = root / f'nsddata/ppdata/{subject}/func1pt8mm', int(subject[-1]) - 1
    names = ['masterordering', 'subjectim', 'sharedix']
    mat = scipy.io.loadmat(root / 'nsddata/experiments/nsd/nsd_expdesign.mat', variable_names=names)
    order, own, shared = mat['masterordering'][0], mat['subjectim'], set(mat['sharedix'][0].tolist())
    files = root.glob(f'nsddata_betas/ppdata/{subject}/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session*')
    counts = [len(order) // 750] * len(own)  # of other subjects all sessions, whether or not they are here
    counts[number] = min(len({path.name[:15] for path in files}), sessions or len(order))
    shown = [int(own[number, k - 1]) for k in order[: 750 * counts[number]]]

    images = {name: nib.load(anatomy / f'roi/{name}.nii.gz') for name in classes}
    labels = {name: np.rint(np.asarray(image.dataobj)) for name, image in images.items()}
    union = np.logical_or.reduce([values > 0 for values in labels.values()])
    left = [np.asarray(nib.load(anatomy / f'roi/lh.{name}.nii.gz').dataobj) for name in classes]
    places = sorted(map(tuple, np.argwhere(union).tolist()), key=lambda place: place[::-1])
    affine = next(iter(images.values())).affine
    single = np.full((len(shown), len(places)), np.nan)
    folder = root / f'nsddata_betas/ppdata/{subject}/func1pt8mm/betas_fithrf_GLMdenoise_RR'
    for session in range(counts[number]):
        path = folder / f'betas_session{session + 1:02d}.hdf5'
        raw = read_voxels(path if path.exists() else path.with_suffix('.nii.gz'), places)
        part = slice(750 * session, 750 * session + 750)
        training = np.asarray([image not in shared for image in shown[part]])
        for v in range(len(places)):
            betas = raw[v].astype(float)
            chosen = betas[training] if normalization == 'train' else betas
            if normalization == 'none':
                single[part, v] = betas / 300 if betas.any() else np.nan
            elif (chosen != chosen[0]).any():
                single[part, v] = (betas - chosen.mean()) / chosen.std(ddof=1)
    rows = {image: [t for t, other in enumerate(shown) if other == image] for image in sorted(set(shown))}
    responses = np.zeros((len(rows), len(places)))
    for row, trials in enumerate(rows.values()):
        valid = ~np.isnan(single[trials])
        responses[row] = np.where(valid, single[trials], 0).sum(0) / np.maximum(valid.sum(0), 1)
    repeats = np.asarray([len(trials) for trials in rows.values()])
    is_test = np.asarray([image in shared for image in rows])
    thrice = [
        image
        for image in shared
        if all((own[k, order[: 750 * count] - 1] == image).sum() == 3 for k, count in enumerate(counts))
    ]
    ncsnr = np.asarray(nib.load(folder / 'ncsnr.nii.gz').dataobj)[tuple(np.transpose(places))].astype(float)
    return {
        'image_id': np.asarray(list(rows)) - 1,
        'repeats': repeats,
        'split': np.where(is_test, b'test', b'train'),
        'seen_by_all': np.isin(list(rows), thrice),
        'coordinates': nib.affines.apply_affine(affine, places),
        **{
            f'roi/{name}': np.asarray([max(0, int(values[place])) for place in places])
            for name, values in labels.items()
        },
        'hemisphere': np.asarray([b'lh' if any(values[place] > 0 for values in left) else b'rh' for place in places]),
        'ncsnr': ncsnr,
        'noise_ceiling': 100 * ncsnr**2 / (ncsnr**2 + (1 / repeats[is_test]).mean()),
        'voxel': np.asarray(places),
        'affine': affine,
        'responses': responses,
        'attributes': dict(
            sessions=np.arange(counts[number]) + 1,
            volume_shape=union.shape,
            subject=subject,
            normalization=normalization,
            beta_version='b3',
            space='func1pt8mm',
            split_rule='test = shared images',
        ),
        'trials': (single, np.asarray([list(rows).index(image) for image in shown])),
    }


def difference(path, expected):
    """Where a store differs from ``slow_store``: a sentence, or an empty string."""
    expected = {key: value for key, value in expected.items() if key != 'trials'}
    attributes = expected.pop('attributes')
    with h5py.File(path, 'r') as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        if {name for name in names if not name.startswith('trials/')} != set(expected):
            return f'datasets {sorted(names)}'
        for name, values in expected.items():
            found = file[name][()]
            if found.shape != np.shape(values):
                return f'{name}: shape {found.shape}, expected {np.shape(values)}'
            if values.dtype.kind == 'f':
                same = np.abs(found - values) <= 1e-5 * (1 + np.abs(values))
                same |= np.isnan(found) & np.isnan(values)
            else:
                same = found == values
            if not same.all():
                place = tuple(np.argwhere(~same)[0])
                return f'{name}{list(place)}: {found[place]}, expected {values[place]}'
        for name, value in attributes.items():
            if not np.array_equal(file.attrs[name], value):
                return f'attribute {name}: {file.attrs[name]}, expected {value}'
    return ''
