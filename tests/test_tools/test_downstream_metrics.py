"""tools/test.py's metrics of detection and segmentation, against independent computations on what it dumped.

The models are annotations with errors (perturbed_truth.py); with two processes the metrics are the same.
"""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
ROOT = Path(__file__).resolve().parents[2]
TOY_MODELS = ROOT / 'tests/test_evaluation'
DETECTOR = """
_base_ = {base!r}
custom_imports = dict(imports=['mmnfn', 'mmpretrain.models', 'perturbed_truth'], allow_failed_imports=False)
model = dict(_delete_=True, type='PerturbedDetector', data_preprocessor=dict(type='DetDataPreprocessor'))
dataset = dict(ann_file={annotations!r}, data_prefix=dict(img={images!r}){classes})
test_dataloader = dict(batch_size=3, dataset=dict(data_root='', **dataset))
test_evaluator = dict(ann_file={annotations!r}, nsd_images={nsd!r})
"""
SEGMENTOR = """
_base_ = {base!r}
custom_imports = dict(imports=['mmnfn', 'mmpretrain.models', 'perturbed_truth'], allow_failed_imports=False)
model = dict(
    _delete_=True,
    type='PerturbedSegmentor',
    num_classes={count},
    data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64)),
)
dataset = dict(
    _delete_=True,
    type='BaseSegDataset',
    data_root={root!r},
    data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    metainfo=dict(classes={classes!r}),
    reduce_zero_label=True,
    pipeline=_base_.test_pipeline,
)
test_dataloader = dict(batch_size=2, dataset=dataset)
"""


def metrics_of(folder, config, processes=1):
    """Run tools/test.py, or dist_test.sh with several processes; return the metrics and the predictions."""
    torch.save(dict(state_dict={'weight': torch.zeros(1)}), folder / 'toy.pth')
    (folder / 'toy.py').write_text(config)
    out, dump = folder / f'metrics_{processes}.json', folder / f'predictions_{processes}.pkl'
    arguments = [folder / 'toy.py', folder / 'toy.pth', *([processes] if processes > 1 else [])]
    command = ['bash', ROOT / 'tools/dist_test.sh'] if processes > 1 else [sys.executable, ROOT / 'tools/test.py']
    command += [*arguments, '--out', out, '--dump', dump, '--work-dir', folder / f'work_{processes}']
    environment = {key: value for key, value in os.environ.items() if key not in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')}
    environment.update(PYTHON=sys.executable, PYTHONPATH=f'{ROOT}:{TOY_MODELS}', OMP_NUM_THREADS='1')
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert 'creating index' not in done.stdout, 'which is what pycocotools says'
    return json.loads(out.read_text()), pickle.loads(dump.read_bytes())


def coco_metrics(annotation_file, predictions, class_names, iou_type, left_out):
    """Compute mAP, AP50 and AP75 of dumped predictions with pycocotools, without some images."""
    annotated = COCO(str(annotation_file))
    category_ids = [next(c['id'] for c in annotated.cats.values() if c['name'] == name) for name in class_names]
    entries = []
    for sample in predictions:
        found = sample['pred_instances']
        for box, score, label, mask in zip(found['bboxes'], found['scores'], found['labels'], found['masks']):
            entry = dict(image_id=sample['img_id'], category_id=category_ids[label], score=float(score))
            x1, y1, x2, y2 = box.tolist()
            entry.update(dict(bbox=[x1, y1, x2 - x1, y2 - y1]) if iou_type == 'bbox' else dict(segmentation=mask))
            entries.append(entry)
    evaluation = COCOeval(annotated, annotated.loadRes(entries), iou_type)
    evaluation.params.imgIds = [i for i in annotated.imgs if i not in left_out]
    evaluation.params.catIds = category_ids
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[:3]


def check_detection(folder, annotations, images, class_names, processes):
    content = json.loads(Path(annotations).read_text())
    nsd = sorted(image['id'] for image in content['images'])[::3]
    (folder / 'nsd.json').write_text(json.dumps(dict(val2017=nsd, train2017=[])))
    config = DETECTOR.format(
        base=str(ROOT / 'configs/demo/mask-rcnn_micro_fpn_demo.py'),
        annotations=str(annotations),
        images=str(images) + '/',
        nsd=str(folder / 'nsd.json'),
        classes=f', metainfo=dict(classes={class_names!r})',
    )
    results = {count: metrics_of(folder, config, count) for count in processes}
    metrics, predictions = results[1]
    assert len(predictions) == metrics['coco/images'] == len(content['images'])
    assert metrics['coco_without_nsd/images'] == len(content['images']) - len(nsd)
    for iou_type in ('bbox', 'segm'):
        for name, left_out in (('coco', ()), ('coco_without_nsd', nsd)):
            expected = coco_metrics(annotations, predictions, class_names, iou_type, left_out)
            found = [metrics[f'{name}/{iou_type}_mAP{kind}'] for kind in ('', '_50', '_75')]
            assert found == pytest.approx(list(expected), abs=1e-6)
            assert 0.05 < found[0] < 0.9
    for other, _ in results.values():
        assert other == metrics


def test_detection_on_simulated_images_with_one_and_two_processes(world, tmp_path):
    """Four images for two processes of three each: one is dealt twice and must count once."""
    annotations = world / 'coco/annotations/instances_val2017.json'
    class_names = tuple(category['name'] for category in json.loads(annotations.read_text())['categories'])
    check_detection(tmp_path, annotations, world / 'coco/val2017', class_names, processes=(1, 2))


def test_detection_on_real_images(real_data, tmp_path):
    """128 photographs, 10 crowds, two images without annotations."""
    annotations = real_data / 'coco128/annotations/instances_train2017.json'
    content = json.loads(annotations.read_text())
    assert sum(a['iscrowd'] for a in content['annotations']) == 10
    assert len({i['id'] for i in content['images']} - {a['image_id'] for a in content['annotations']}) == 2
    from mmdet.datasets import CocoDataset

    check_detection(
        tmp_path, annotations, real_data / 'coco128/train2017', CocoDataset.METAINFO['classes'], processes=(1,)
    )


def iou_metrics(predictions, annotation_files, num_classes):
    """Compute mIoU, mAcc and aAcc in percent from one confusion matrix; annotations are 0 = unlabelled, 1 … = class."""
    confusion = np.zeros((num_classes, num_classes), np.int64)
    for sample, path in zip(predictions, annotation_files):
        truth = np.asarray(Image.open(path)).astype(int) - 1
        predicted = np.asarray(sample['pred_sem_seg']['data'])[0]
        assert truth.shape == predicted.shape
        seen = truth >= 0
        np.add.at(confusion, (truth[seen], predicted[seen]), 1)
    hits, true, found = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid='ignore'):
        iou, accuracy = hits / (true + found - hits), hits / true
    return dict(mIoU=100 * np.nanmean(iou), mAcc=100 * np.nanmean(accuracy), aAcc=100 * hits.sum() / confusion.sum())


def test_segmentation_with_one_and_two_processes(world, tmp_path):
    base, root = ROOT / 'configs/demo/upernet_micro_demo.py', world / 'ADEChallengeData2016'
    classes = tuple(Config.fromfile(base).classes)
    config = SEGMENTOR.format(base=str(base), root=str(root), classes=classes, count=len(classes))
    (metrics, predictions), (of_two, _) = (metrics_of(tmp_path, config, processes) for processes in (1, 2))
    assert of_two == metrics
    files = [Path(sample['seg_map_path']) for sample in predictions]
    assert len(files) == len(set(files)) == len(list((root / 'annotations/validation').glob('*.png')))
    for name, value in iou_metrics(predictions, files, len(classes)).items():
        assert metrics[name] == pytest.approx(value, abs=0.0051), 'MMSegmentation rounds to two decimals'
        assert 40 < value < 99
