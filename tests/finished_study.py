"""A study whose jobs are done, without having been run."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mmnfn.experiments import read_study

ROOT = Path(__file__).resolve().parents[1]
ROWS = ('nfn', 'nfn-shuffled')


def predictions(rng, noise):
    image = torch.from_numpy(rng.normal(size=(20, 8)))
    brain = image + noise * torch.from_numpy(rng.normal(size=(20, 8)))
    return [
        dict(subject=f'subj0{1 + i // 10}', image_id=i % 10, image_embedding=image[i], fmri_embedding=brain[i])
        for i in range(20)
    ]


def finished_study(folder):
    """A study of one backbone and two rows whose jobs are done, with two seeds; every training was killed once."""
    (folder / 'configs').mkdir()
    (folder / 'configs/a.py').write_text('a = 1\n')
    column = dict(task='encode', metric='encoding/pcc', scale=100)
    content = dict(
        name='Toy & <co>',
        work_dir=str(folder / 'work'),
        seeds=[0, 1],
        backbones=dict(
            micro=dict(
                pretrain={row: dict(config='configs/a.py') for row in ROWS},
                transfer=dict(encode=dict(config='configs/a.py', train=False)),
            )
        ),
        tables=[dict(title='Toy', columns=dict(PCC=column))],
    )
    (folder / 'study.yml').write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # the study's configs are beside it: paths also start from the current folder
        study = read_study(folder / 'study.yml', ROOT)
    for number, job in enumerate(study.jobs):
        job.write_record(status='done', seconds=[1.0], revision=None)
        if job.labels['task'] == 'encode':
            figures = {'encoding/pcc': 0.3 + 0.01 * number}
            for roi, ceiling in (('streams', 0.7), ('floc-faces', 0.8)):
                figures.update({f'encoding/pcc_roi_{roi}': 0.4, f'encoding/pcc_roi_{roi}_low': 0.3})
                figures[f'encoding/ceiling_roi_{roi}'] = ceiling
            (job.folder / 'metrics.json').write_text(json.dumps(figures))
            continue
        (job.folder / 'metrics.json').write_text('{}')
        (job.folder / 'backbone_latest.pth').touch()
        (job.folder / 'embeddings.pkl').write_bytes(pickle.dumps(predictions(np.random.default_rng(number), 1.0)))
        # The clock was set back between the two starts of seed 1.
        starts = sorted(('20260101_000000', '20260102_000000'), reverse=job.labels['seed'] == '1')
        for start, value in zip(starts, (5.0, 4.0)):
            (job.folder / start / 'vis_data').mkdir(parents=True)
            lines = [dict(loss_con=value, step=step) for step in ((10, 20) if value == 5 else (20, 30))]
            lines.append({'retrieval/image_to_brain_top1': value / 10, 'step': int(value)})
            text = '\n'.join(map(json.dumps, lines)) + '\n{"loss_con": 1'  # killed within a line
            (job.folder / start / 'vis_data/scalars.json').write_text(text)
    return study
