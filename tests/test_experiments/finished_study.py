"""A study whose jobs are done, without having been run; every training was killed once, and one test is missing."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mmnfn.experiments import read_study

ROOT = Path(__file__).resolve().parents[2]
PCC = {
    'random': {0: 0.20, 1: 0.30, 2: 0.25},
    'nfn': {0: 0.26, 1: 0.34, 2: 0.33},
    'nfn-shuffled': {0: 0.24, 1: 0.33},
}
CONTENT = dict(
    name='Toy & <co>',
    seeds=[0, 1, 2],
    backbones=dict(
        micro=dict(
            pretrain={
                'random': dict(checkpoint='configs/a.py'),
                'nfn': dict(config='configs/a.py'),
                'nfn-shuffled': dict(
                    config='configs/a.py', options={'train_dataloader.batch_sampler.subjects_per_step': 2}
                ),
            },
            transfer=dict(encode=dict(config='configs/a.py', train=False)),
        )
    ),
    tables=[
        dict(
            title='Toy',
            references=['random', 'nfn-shuffled'],
            columns=dict(PCC=dict(task='encode', metric='encoding/pcc', scale=100)),
            paper=dict(micro=dict(random=dict(PCC=54.2))),
        )
    ],
)


def predictions(rng):
    image = torch.from_numpy(rng.normal(size=(20, 8)))
    brain = image + torch.from_numpy(rng.normal(size=(20, 8)))
    return [
        dict(subject=f'subj0{1 + i // 10}', image_id=i % 10, image_embedding=image[i], fmri_embedding=brain[i])
        for i in range(20)
    ]


def finished_study(folder):
    """Write the study and what its jobs leave."""
    (folder / 'configs').mkdir()
    (folder / 'configs/a.py').write_text('train_dataloader = dict(batch_sampler=dict(subjects_per_step=4))\n')
    content = dict(CONTENT, work_dir=str(folder / 'work'))
    (folder / 'study.yml').write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # the study's configs are beside it: paths also start from the current folder
        study = read_study(folder / 'study.yml', ROOT)
    for number, job in enumerate(study.jobs):
        seed, metrics = int(job.labels['seed']), {}
        if job.labels['task'] == 'encode':
            pcc = PCC[job.labels['row']].get(seed)
            if pcc is None:
                continue
            metrics = {'encoding/pcc': pcc, 'coco/bbox_mAP_s': -1.0, 'coco/bbox_mAP_l': 0.5}
            for roi, ceiling in (('streams', 0.7), ('floc-faces', 0.8)):
                metrics.update({f'encoding/pcc_roi_{roi}': 0.4, f'encoding/pcc_roi_{roi}_low': 0.3})
                metrics[f'encoding/ceiling_roi_{roi}'] = ceiling
        job.write_record(status='done', seconds=[1.0], revision=None)
        (job.folder / 'metrics.json').write_text(json.dumps(metrics))
        if job.labels['task'] == 'encode':
            continue
        (job.folder / 'backbone_latest.pth').touch()
        (job.folder / 'embeddings.pkl').write_bytes(pickle.dumps(predictions(np.random.default_rng(number))))
        # The clock was set back between the two starts of seed 1.
        starts = sorted(('20260101_000000', '20260102_000000'), reverse=seed == 1)
        for start, value in zip(starts, (5.0, 4.0)):
            (job.folder / start / 'vis_data').mkdir(parents=True)
            lines = [dict(loss_con=value, step=step) for step in ((10, 20) if value == 5 else (20, 30))]
            lines.append({'retrieval/image_to_brain_top1': value / 10, 'step': int(value)})
            text = '\n'.join(map(json.dumps, lines)) + '\n{"loss_con": 1'  # killed within a line
            (job.folder / start / 'vis_data/scalars.json').write_text(text)
    return study
