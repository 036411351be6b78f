"""APbox and APsegm equal pycocotools', on all images and without those of NSD."""

import json

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmnfn.evaluation import CocoNSDMetric, coco

CLASSES = ('cat', 'dog')
SIDE = 60


def box_mask(x, y, w, h):
    """Fill a quarter of a box, so that the area of a mask is not that of its box."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[y : y + h, x : x + w] = 1
    return mask * (np.add.outer(np.arange(SIDE), np.arange(SIDE)) % 4 == 0).astype(np.uint8)


def run_lengths(mask):
    encoded = mask_utils.encode(np.asfortranarray(mask))
    return dict(size=encoded['size'], counts=encoded['counts'].decode())


@pytest.fixture(scope='module')
def truth(tmp_path_factory):
    """Write annotations of 12 images: things of all sizes, a crowd, two images without any; class ids 7 and 3."""
    rng = np.random.default_rng(0)
    annotations = []
    for image in range(1, 11):
        for _ in range(rng.integers(1, 4)):
            x, y, w, h = (int(v) for v in (*rng.integers(0, 25, 2), *rng.integers(4, 34, 2)))
            crowd = int(image == 4 and not annotations[-1]['iscrowd'])
            mask = box_mask(x, y, w, h)
            ids = dict(id=len(annotations) + 1, image_id=image, category_id=int(rng.choice([7, 3])))
            place = dict(bbox=[x, y, w, h], area=int(mask.sum()), segmentation=run_lengths(mask))
            annotations.append(dict(ids, **place, iscrowd=crowd))
    assert sum(a['iscrowd'] for a in annotations) >= 1
    content = dict(
        images=[dict(id=i, width=SIDE, height=SIDE, file_name=f'{i}.jpg') for i in range(1, 13)],
        categories=[dict(id=3, name='dog'), dict(id=7, name='cat')],
        annotations=annotations,
    )
    path = tmp_path_factory.mktemp('coco') / 'instances.json'
    path.write_text(json.dumps(content))
    return path, content


@pytest.fixture(scope='module')
def samples(truth):
    """Make predictions: annotations moved, sometimes lost, and false ones; none for image 12.

    Labels are in the order of the file's categories, as in MMDetection, and not of CLASSES.
    """
    rng = np.random.default_rng(1)
    label = {3: 0, 7: 1}
    found = {i: [] for i in range(1, 13)}
    for a in truth[1]['annotations']:
        if rng.random() > 0.2:
            x, y, w, h = (np.asarray(a['bbox']) + rng.integers(-2, 3, 4)).clip(0)
            found[a['image_id']].append((label[a['category_id']], (x, y, max(w, 1), max(h, 1)), rng.random()))
    for image in range(1, 12):
        found[image].append((0, (*rng.integers(0, 25, 2), 20, 20), rng.random()))
    return [
        dict(
            img_id=image,
            pred_instances=dict(
                labels=torch.tensor([entry[0] for entry in entries], dtype=torch.int64),
                scores=torch.tensor([entry[2] for entry in entries]),
                bboxes=torch.tensor([(x, y, x + w, y + h) for _, (x, y, w, h), _ in entries]).view(-1, 4).float(),
                masks=torch.tensor(np.asarray([box_mask(*box) for _, box, _ in entries])).view(-1, SIDE, SIDE).bool(),
            ),
        )
        for image, entries in found.items()
    ]


def evaluate(truth, samples, **settings):
    MMLogger.get_instance('test_coco')
    metric = CocoNSDMetric(str(truth[0]), **settings)
    metric.dataset_meta = dict(classes=CLASSES)
    for start in range(0, len(samples), 5):
        metric.process({}, samples[start : start + 5])
    return metric.evaluate(len(samples))


def by_hand(truth, prefix, iou_type, images):
    """Evaluate the written results by pycocotools, without our classes."""
    annotated = COCO(str(truth[0]))
    evaluation = COCOeval(annotated, annotated.loadRes(f'{prefix}.{iou_type}.json'), iou_type)
    evaluation.params.imgIds = images
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[:6]


def test_metrics_are_those_of_pycocotools(truth, samples, tmp_path):
    nsd = [2, 4, 9, 99]
    (tmp_path / 'nsd.json').write_text(json.dumps(dict(train2017=[2, 4], val2017=[9, 99])))
    prefix = str(tmp_path / 'results')
    metrics = evaluate(truth, samples, nsd_images=str(tmp_path / 'nsd.json'), outfile_prefix=prefix)
    subsets = dict(coco=list(range(1, 13)), coco_without_nsd=[i for i in range(1, 13) if i not in nsd])
    assert {name: metrics[f'{name}/images'] for name in subsets} == dict(coco=12, coco_without_nsd=9)
    for name, images in subsets.items():
        for iou_type in ('bbox', 'segm'):
            expected = by_hand(truth, prefix, iou_type, images)
            found = [metrics[f'{name}/{iou_type}_mAP{kind}'] for kind in ('', '_50', '_75', '_s', '_m', '_l')]
            assert found == pytest.approx(list(expected), abs=1e-6)
            assert 0.05 < found[0] < found[1] < 0.95, 'neither perfect nor useless'
    assert metrics['coco/bbox_mAP'] != metrics['coco_without_nsd/bbox_mAP']
    assert metrics['coco/bbox_mAP'] != round(metrics['coco/bbox_mAP'], 3), 'not rounded'
    written = json.loads((tmp_path / 'results.segm.json').read_text())
    assert all('bbox' not in entry for entry in written), 'with a box, pycocotools would take its area'
    assert {entry['category_id'] for entry in written} == {7, 3}


def test_nothing_found_and_nothing_to_find(truth, samples):
    nothing = [dict(s, pred_instances={key: value[:0] for key, value in s['pred_instances'].items()}) for s in samples]
    metrics = evaluate(truth, nothing, metric='bbox')
    assert metrics['coco/bbox_mAP'] == metrics['coco/bbox_mAP_s'] == 0
    assert metrics['coco/bbox_mAP_l'] == -1, 'the images are too small for a large thing'
    empty = evaluate(truth, [s for s in nothing if s['img_id'] > 10])
    assert empty['coco/images'] == 2 and empty['coco/segm_mAP'] == -1, 'only tested images count'


@pytest.fixture()
def pair(tmp_path):
    """Make a file of one image with the categories (cat, dog), and perfect predictions in MMDetection's labels."""
    annotations = [
        dict(id=i, image_id=5, category_id=i, bbox=[x, 0, 10, 10], area=100, iscrowd=0)
        | dict(segmentation=[[x, 0, x + 10, 0, x + 10, 10, x, 10]])
        for i, x in ((1, 0), (2, 20))
    ]
    content = dict(
        images=[dict(id=5, width=SIDE, height=40, file_name='5.jpg')],
        categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
        annotations=annotations,
    )
    found = dict(
        labels=torch.tensor([0, 1]),
        scores=torch.ones(2),
        bboxes=torch.tensor([[0, 0, 10, 10], [20, 0, 30, 10]]),
        masks=torch.zeros(2, 40, SIDE, dtype=torch.bool),
    )
    found['masks'][0, :10, :10] = found['masks'][1, :10, 20:30] = True
    return content, [dict(img_id=5, ori_shape=(40, SIDE), pred_instances=found)], tmp_path / 'instances.json'


@pytest.mark.parametrize('classes', [('cat', 'dog'), ('dog', 'cat')])
def test_labels_are_those_of_mmdetections_dataset(pair, monkeypatch, classes):
    content, samples, path = pair
    path.write_text(json.dumps(content))
    monkeypatch.setitem(globals(), 'CLASSES', classes)
    CocoDataset = pytest.importorskip('mmdet.datasets').CocoDataset
    dataset = CocoDataset(ann_file=str(path), data_prefix=dict(img=''), metainfo=dict(classes=classes))
    labels = [instance['bbox_label'] for instance in dataset.get_data_info(0)['instances']]
    assert labels == samples[0]['pred_instances']['labels'].tolist() == [0, 1]
    metrics = evaluate((path, content), samples)
    assert metrics['coco/bbox_mAP'] == metrics['coco/segm_mAP'] == pytest.approx(1)


def test_unusual_files_are_understood(pair):
    """Annotation ids from 0, no iscrowd, and image ids as strings, which still are NSD's numbers."""
    content, samples, path = pair
    content['images'][0]['id'] = samples[0]['img_id'] = '0005'
    for number, annotation in enumerate(content['annotations']):
        annotation.update(id=number, image_id='0005')
        del annotation['iscrowd']
    path.write_text(json.dumps(content))
    nsd = path.with_name('nsd.json')
    nsd.write_text(json.dumps(dict(train2017=[], val2017=[5])))
    metrics = evaluate((path, content), samples, nsd_images=str(nsd))
    assert metrics['coco/bbox_mAP'] == metrics['coco/segm_mAP'] == pytest.approx(1)
    assert metrics['coco_without_nsd/images'] == 0
    content['images'][0]['id'] = samples[0]['img_id'] = 'five.jpg'
    path.write_text(
        json.dumps(dict(content, annotations=[dict(a, image_id='five.jpg') for a in content['annotations']]))
    )
    with pytest.raises(ValueError, match="image of id 'five.jpg', which is not an id of COCO. Leave nsd_images out"):
        evaluate((path, content), samples, nsd_images=str(nsd))


def test_a_missing_list_is_logged_and_a_wrong_one_refused(truth, samples, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(coco, 'print_log', lambda message, *args: said.append(message))
    metrics = evaluate(truth, samples, nsd_images=str(tmp_path / 'nsd.json'))
    assert not [key for key in metrics if 'without_nsd' in key]
    assert len(said) == 1 and 'tools/coco_nsd_overlap.py nsd_stim_info_merged.csv --ids' in said[0]
    (tmp_path / 'nsd.json').write_text('[1, 2]')
    with pytest.raises(ValueError, match='nsd.json is no list of COCO images by split'):
        evaluate(truth, samples, nsd_images=str(tmp_path / 'nsd.json'))


def test_wrong_arguments_are_named(truth, samples):
    with pytest.raises(FileNotFoundError, match="ann_file: there is no file 'nothing.json'"):
        CocoNSDMetric('nothing.json')
    with pytest.raises(ValueError, match="metric must be some of .*'proposal'"):
        CocoNSDMetric(str(truth[0]), metric='proposal')
    metric = CocoNSDMetric(str(truth[0]))
    metric.dataset_meta = dict(classes=('cat', 'bird'))
    metric.process({}, samples)
    with pytest.raises(ValueError, match="has no class 'bird'"):
        metric.evaluate(12)
    with pytest.raises(ValueError, match='has no image 55'):
        evaluate(truth, [dict(samples[0], img_id=55)])
    with pytest.raises(ValueError, match=r'image 1 has height and width \(60, 60\), but it was loaded with \(40, 60\)'):
        evaluate(truth, [dict(samples[0], ori_shape=(40, SIDE))])
