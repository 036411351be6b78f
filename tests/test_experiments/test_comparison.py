"""Two sets of predictions compared: against loops over drawn images, in worlds with known answers, and by the tool."""

import pickle
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from mmnfn.evaluation.ridge import draw_images
from mmnfn.experiments.comparison import compare_predictions, draw_comparison
from mmnfn.utils import UserError

ROOT = Path(__file__).resolve().parents[2]
ROIS = {'floc-faces': np.array([0, 1]), 'streams': np.array([1, 2, 3, 4])}


def encoding(rng, noise, samples=((0, 30), (5, 35)), photos=2):
    """Predictions of voxels of two subjects, who share images: signal plus noise of this std for each voxel."""
    world = np.random.default_rng(0)
    found = []
    for number, span in enumerate(samples):
        voxels = dict(index=np.arange(5), rois=ROIS)
        for image in range(*span):
            signal = world.normal(size=5)
            sample = dict(subject=f'subj0{number + 1}', image_id=image, photo_id=image // photos, voxels=voxels)
            predicted = signal + noise * rng.normal(size=5)
            found.append(dict(sample, responses=signal + world.normal(size=5), predicted_responses=predicted))
    return found


def retrieval(rng, noise, samples=((0, 16), (3, 19)), photos=2):
    """Embeddings of images and responses of two subjects."""
    world = np.random.default_rng(0)
    found = []
    for number, span in enumerate(samples):
        for image in range(*span):
            brain = torch.from_numpy(world.normal(size=6))
            sample = dict(subject=f'subj0{number + 1}', image_id=image, photo_id=image // photos, fmri_embedding=brain)
            found.append(dict(sample, image_embedding=brain + noise * torch.from_numpy(rng.normal(size=6))))
    return found


def segmentation(rng, noise):
    """Label maps with errors, the first rows unlabelled; class 4 occurs in few images."""
    world = np.random.default_rng(0)
    found = []
    for image in range(20):
        labels = torch.from_numpy(world.choice(5, (1, 6, 7), p=[0.4, 0.3, 0.2, 0.09, 0.01]).astype(np.uint8))
        wrong = torch.from_numpy(rng.random(labels.shape) < noise)
        predicted, labels[:, :2] = torch.where(wrong, (labels + 1) % 5, labels), 255
        found.append(dict(img_path=f'{image}.jpg', gt_sem_seg=dict(data=labels), pred_sem_seg=dict(data=predicted)))
    return found


def pcc(members):
    def metric(predictions, drawn):
        values = []
        for subject in ('subj01', 'subj02'):
            own = [predictions[i] for i in drawn if predictions[i]['subject'] == subject]
            columns = [[(p['predicted_responses'][v], p['responses'][v]) for p in own] for v in members]
            values.append(np.mean([scipy.stats.pearsonr(*zip(*column))[0] for column in columns]))
        return np.mean(values)

    return metric


def top1(query, gallery):
    def metric(predictions, drawn):
        values = []
        for subject in ('subj01', 'subj02'):
            all_of = [p for p in predictions if p['subject'] == subject]
            found = []
            for one in (predictions[i] for i in drawn if predictions[i]['subject'] == subject):
                others = [p for p in all_of if p['photo_id'] != one['photo_id']]
                cosines = [torch.cosine_similarity(one[query], p[gallery], dim=0) for p in [one, *others]]
                found.append(max(cosines) == cosines[0])
            values.append(np.mean(found))
        return np.mean(values)

    return metric


def miou(predictions, drawn):
    values = []
    for label in range(5):
        both = either = 0
        for p in (predictions[i] for i in drawn):
            known = p['gt_sem_seg']['data'] != 255
            predicted, right = (p[key]['data'][known] == label for key in ('pred_sem_seg', 'gt_sem_seg'))
            both, either = both + (predicted & right).sum().item(), either + (predicted | right).sum().item()
        values += [both / either] if either else []
    return np.mean(values)


DIRECTIONS = {
    'image to brain': top1('image_embedding', 'fmri_embedding'),
    'brain to image': top1('fmri_embedding', 'image_embedding'),
}


@pytest.mark.parametrize(
    'make, metrics',
    [
        (encoding, {'all voxels': pcc(range(5)), **{roi: pcc(members) for roi, members in ROIS.items()}}),
        (retrieval, DIRECTIONS),
        (segmentation, dict(mIoU=miou)),
    ],
)
def test_differences_equal_a_loop_over_drawn_images(make, metrics):
    """The same images for A and B, all subjects, and all crops of a photograph."""
    a, b = make(np.random.default_rng(1), 0.4), make(np.random.default_rng(2), 0.8)
    table = compare_predictions(a, b, bootstraps=30, seed=3).set_index('outcome')
    assert list(table.index) == list(metrics)
    photo = [p.get('photo_id', p.get('img_path')) for p in a]
    photos = sorted(set(photo), key=str)
    draws = [np.repeat([photos.index(p) for p in photos], n) for n in draw_images(len(photos), 30, 3)]
    for name, metric in metrics.items():
        row, everything = table.loc[name], range(len(a))
        assert [row.A, row.B] == pytest.approx([100 * metric(p, everything) for p in (a, b)])
        assert row['A − B'] == pytest.approx(row.A - row.B)
        differences = []
        for drawn in draws:
            samples = [i for number in drawn for i in everything if photo[i] == photos[number]]
            differences.append(metric(a, samples) - metric(b, samples))
        assert [row.low, row.high] == pytest.approx(100 * np.percentile(differences, (2.5, 97.5)), abs=1e-4)
        beyond = min(np.sum(np.array(differences) <= 0), np.sum(np.array(differences) >= 0))
        assert row.p == pytest.approx(min(1, 2 * (beyond + 1) / 31))


def test_noise_in_one_roi_is_found_there_alone():
    """B is A with noise in voxel 0, which floc-faces has."""
    a = encoding(np.random.default_rng(1), 0.3)
    noise = np.random.default_rng(2).normal(size=len(a))
    b = [dict(p, predicted_responses=p['predicted_responses'] + [3 * n, 0, 0, 0, 0]) for p, n in zip(a, noise)]
    table = compare_predictions(a, b).set_index('outcome')
    assert (table.loc[['all voxels', 'floc-faces'], 'low'] > 0).all() and table.p['floc-faces'] < 0.002
    assert table.loc['streams', ['A − B', 'low', 'high']].tolist() == [0, 0, 0] and table.p['streams'] == 1
    assert table['p (Holm)'].tolist() == pytest.approx([table.p['all voxels'], 2 * table.p['floc-faces'], 1])
    figure = draw_comparison(table.reset_index())
    assert [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes] == [['all voxels'], [*ROIS]]


def test_models_of_the_same_quality_differ_in_one_of_twenty_comparisons():
    rng = np.random.default_rng(4)
    pairs = [[encoding(rng, 1, [(0, 60)], photos=1) for _ in 'ab'] for _ in range(200)]
    tables = pd.concat(compare_predictions(*pair, bootstraps=200)[:1] for pair in pairs)
    assert 0.90 < ((tables.low < 0) & (tables.high > 0)).mean() < 0.99
    assert 0.01 < (tables.p < 0.05).mean() < 0.10


def test_a_voxel_with_constant_predictions_is_left_out_of_both():
    a, b = (encoding(np.random.default_rng(seed), 0.5) for seed in (1, 2))
    for p in b:
        p['predicted_responses'][1] = 0.1
    table = compare_predictions(a, b, bootstraps=20).set_index('outcome')
    expected = [100 * pcc([0])(p, range(len(a))) for p in (a, b)]
    assert table.loc['floc-faces', ['A', 'B']].tolist() == pytest.approx(expected)


def test_miou_is_mmsegmentations():
    IoUMetric = pytest.importorskip('mmseg.evaluation').IoUMetric
    predictions = segmentation(np.random.default_rng(1), 0.4)
    metric = IoUMetric()
    metric.dataset_meta = dict(classes=list('abcdefg'))
    metric.process({}, predictions)
    (found,) = compare_predictions(predictions, predictions, bootstraps=10).A
    assert found == pytest.approx(metric.compute_metrics(metric.results)['mIoU'], abs=0.006)


def other_voxels(predictions):
    return [dict(p, voxels=dict(p['voxels'], index=np.arange(1, 6))) for p in predictions]


def other_labels(predictions):
    return [dict(p, gt_sem_seg=dict(data=p['gt_sem_seg']['data'] + 1)) for p in predictions]


def captions(predictions):
    return [{'text_embedding' if key == 'fmri_embedding' else key: p[key] for key in p} for p in predictions]


@pytest.mark.parametrize(
    'a, change, words',
    [
        (encoding, lambda p: p[1:], r"other test images: 60 samples from \('subj01', 0\) on, and 59 from"),
        (encoding, lambda p: retrieval(np.random.default_rng(1), 0), 'predictions of encoding, retrieval or segment'),
        (encoding, other_voxels, 'subj01 has other voxels or responses'),
        (encoding, lambda p: [dict(x, responses=x['responses'] + 1) for x in p], 'subj01 has other voxels or resp'),
        (retrieval, captions, 'fmri_embedding and text_embedding cannot be compared'),
        (segmentation, other_labels, '0.jpg has other labels'),
    ],
)
def test_what_was_not_tested_on_the_same_is_refused(a, change, words):
    predictions = a(np.random.default_rng(1), 0.5)
    with pytest.raises(UserError, match=words):
        compare_predictions(predictions, change(predictions))


def compare(*arguments):
    return runpy.run_path(str(ROOT / 'tools/experiments/compare.py'))['main']([*map(str, arguments)])


def test_folders_are_compared_by_files_of_the_same_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder, noise in (('a', 0.4), ('b', 0.8)):
        for name, make in (('encode', encoding), ('probe', segmentation), (f'only-{folder}', segmentation)):
            path = Path(folder) / name / 'predictions.pkl'
            path.parent.mkdir(parents=True)
            path.write_bytes(pickle.dumps(make(np.random.default_rng(1), noise)))
    assert compare('a', 'b', '--out', 'out') == 0
    table = pd.read_csv('out/comparison.csv')
    assert list(table.outcome) == ['all voxels', *ROIS, 'mIoU'] and (table.A > table.B).all()
    text = Path('out/comparison.md').read_text()
    assert text.startswith('A: a  \nB: b\n') and f'| segmentation, mIoU | {table.A[3]:.1f} |' in text
    assert 'The 18 and 20 test images' in text and Path('out/comparison.png').stat().st_size > 5000
    assert 'encoding PCC by ROI, floc-faces' in capsys.readouterr().out


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['a', 'b'], 'a and b have no .pkl file of the same name'),
        (['a/x.pkl', 'b/y.pkl'], 'a/x.pkl and b/y.pkl cannot be compared: they have other test images'),
        (['a/x.pth', 'b/y.pth'], 'A, B: a/x.pth is no folder and no .pkl file of predictions; checkpoints'),
        (['a/x.pkl', 'b/z.pkl'], 'b/z.pkl cannot be read as predictions'),
        (['a/x.pkl', 'b/y.pth', '--config', 'any.py'], "A, B: there is no file 'b/y.pth'"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    for path, noise in (('a/x.pkl', encoding), ('b/y.pkl', lambda *_: encoding(*_)[:-1])):
        Path(path).parent.mkdir()
        Path(path).write_bytes(pickle.dumps(noise(np.random.default_rng(1), 0.5)))
    assert compare(*arguments, '--out', 'out') == 2 and not list(Path().glob('out/comparison*'))
    err = capsys.readouterr().err
    assert err.startswith('compare.py: error: ') and words in err and err.count('\n') == 1
