"""A folder like a user's, in which the documented commands can be typed.

The simulated world takes the place of NSD, COCO and ADE20K, and small versions of the shipped configs and studies have
their names.
"""

import contextlib
import importlib.util
import re
import shlex
import shutil
import sys
import traceback
from pathlib import Path

import algonauts_tree
import torch
import yaml
from documented import COMMANDS, ROOT
from mmengine.config import Config
from small_configs import make_small_pretraining, make_small_transfer

from mmnfn.nsd import NSDLayout

NOT_RUN = {
    r'^(make|pip|mim|source|pre-commit) ': 'builds an environment, or is this suite',
    r'tools/demo\.py': 'is the demo, with tests of its own',
    r'tables_1-2\.yml --launcher slurm': 'needs a cluster: test_runner.py has a Slurm of its own',
}
if importlib.util.find_spec('wandb') is None:
    NOT_RUN['WandbVisBackend'] = 'needs wandb'
if not torch.cuda.is_available():
    NOT_RUN['--amp|benchmarks/gpu.py'] = 'needs a GPU'

# Launchers and installed commands end in these scripts; they have tests of their own.
SCRIPT_OF = {
    r'tools/dist_train\.sh (\S+) \d+': r'python tools/train.py \1',
    r'tools/dist_test\.sh (\S+ \S+) \d+': r'python tools/test.py \1',
    r'(?:\w+=\d )*tools/slurm_train\.sh \S+ \S+ (\S+) (\S+)': r'python tools/train.py \1 --work-dir \2',
    r'mmnfn-nsd (inspect|prepare)': r'python tools/\1_nsd.py',
    r'mmnfn-nsd overlap': 'python tools/coco_nsd_overlap.py',
}
# Paths and sizes in the documentation, and what replaces them here.
HERE = {
    '/path/to/nsd_stim_info_merged.csv': 'data/nsd/nsddata/experiments/nsd/nsd_stim_info_merged.csv',
    '/path/to/': 'data/',
    'T1_to_func1pt8mm': 'brainmask',
    'subj08': 'subj02',
    'maps_random': 'maps',
    'maps_nfn': 'maps',
    '224': '32',
    'epoch_100.pth': 'epoch_1.pth',
    'epoch_12.pth': 'epoch_1.pth',
    'iter_600.pth': 'iter_1.pth',
    'CHECKPOINT': 'work_dirs/mask-rcnn_nfn-swin-s_fpn_1x_coco/epoch_1.pth',
    '--ids 46002 61882': '--ids {ids}',
    '--workers 2': '--workers 1',
    '--subjects 8': '--subjects 2',
    '--subjects 4 --sessions 2': '--subjects 1 --sessions 1 --voxel-mm 8 --stimulus-size 32 --workers 1',
    "device='cuda'": "device='cpu'",
    'epoch_100': 'epoch_1',
    'work_dirs/studies/micro/swin-micro/nfn/seed0': 'comparison/A',
    'work_dirs/studies/micro/swin-micro/random/seed0': 'comparison/B',
    'stimulus_size=64': 'stimulus_size=32, voxel_mm=8.0',
}
# Figure 3 compares with two more models.
ALSO = [f'python tools/train.py configs/nfn/pretrain_nsd_{name}.py' for name in ('clip', 'brainformer')]
# In this order each command finds the files it needs; the last pretraining is that of the shipped model.
ORDER = (
    'collect_env|simulate_nsd|inspect_nsd',
    'tools/prepare_|coco_nsd_overlap|--random',
    'train.py configs/nfn/pretrain.* model',
    'train.py configs/nfn/pretrain.* --|train.py configs/nfn/pretrain_nsd_',
    'train.py configs/nfn/pretrain',
    'train.py configs/nfn/adapt',
    'tools/test.py configs/nfn/|publish_model|export_backbone|check_checkpoint',
    'tools/train.py',
    'tools/test.py',
    'tools/visualization',
    'compare.py.* --config',
    'run.py(?!.*(--results|--status))',
    'report.py(?!.*--results)',
    'run.py|report.py|compare.py',
)
CONFIGS = {
    'nfn': ('pretrain_nsd', 'pretrain_nsd_clip', 'pretrain_nsd_brainformer', 'adapt_subject'),
    'encoding': ('swin-s_nsd', 'low-level_nsd'),
    'mask_rcnn': ('mask-rcnn_nfn-swin-s_fpn_1x_coco', 'mask-rcnn_nfn-frozen-swin-s_fpn_1x_coco'),
    'upernet': ('nfn-swin-s_upernet_8xb2-160k_ade20k-512x512',),
    'linear': ('nfn-swin-s_linear_8xb2-40k_ade20k-512x512',),
}


def is_run(command):
    """Check whether a command is run here."""
    return not any(re.search(pattern, command) for pattern in NOT_RUN)


def script_of(command):
    """Return a command as that of the script that does its work."""
    for launcher, script in SCRIPT_OF.items():
        command = re.sub(launcher, script, command)
    return command


def here(text):
    """Return a command or Python code with the paths and sizes of this folder."""
    for there, this in HERE.items():
        text = text.replace(there, this)
    return text


def typed():
    """Return the commands to be typed here, each once, in order."""
    commands = {script_of(here(command)) for command in COMMANDS if is_run(command)}.union(ALSO)
    places = {c: next(k for k, pattern in enumerate(ORDER) if re.search(pattern, c)) for c in commands}
    return sorted(commands, key=lambda command: (places[command], command))


def make_home(home, world):
    """Fill a folder with tools, data, configs, and studies of one seed and one test."""
    shutil.copytree(ROOT / 'tools', home / 'tools', ignore=shutil.ignore_patterns('dev', '__pycache__'))
    write_data(home, world)
    write_configs(home)
    (home / 'mmnfn').mkdir()
    (home / 'mmnfn/configs').symlink_to(home / 'configs')  # the path of configs beside a checkout
    encode = dict(config=str(home / 'configs/encoding/swin-s_nsd.py'), train=False)
    nfn = dict(checkpoint='work_dirs/pretrain_nsd/backbone_latest.pth')
    table = dict(title='Encoding', columns=dict(PCC=dict(task='encode', metric='encoding/pcc', scale=100)))
    (home / 'studies').mkdir()
    for path in (ROOT / 'studies').glob('*.yml'):
        study = dict(
            name='Small',
            work_dir='work_dirs/studies/' + ('micro' if path.stem.endswith('_micro') else 'full'),
            seeds=[0],
            backbones=dict(swin=dict(pretrain=dict(nfn=nfn), transfer=dict(encode=encode))),
            tables=[table],
        )
        (home / 'studies' / path.name).write_text(yaml.safe_dump(study, sort_keys=False))


def write_configs(home):
    """Write small versions of the configs that the commands name."""
    demo = ROOT / 'configs/demo'
    labels = Config.fromfile(demo / 'upernet_micro_demo.py').classes
    classes = dict(
        mask_rcnn=Config.fromfile(demo / 'mask-rcnn_micro_fpn_demo.py').classes, upernet=labels, linear=labels
    )
    for folder, names in CONFIGS.items():
        (home / 'configs' / folder).mkdir(parents=True)
        for name in names:
            cfg = Config.fromfile(ROOT / f'configs/{folder}/{name}.py')
            if folder in classes:
                make_small_transfer(cfg, 'swin-s', classes[folder])
            else:
                make_small_pretraining(
                    cfg, 'swin-s', [2] if folder == 'encoding' or name == 'adapt_subject' else [1, 2]
                )
            if name == 'adapt_subject':
                cfg.load_from = here(cfg.load_from)
                cfg.train_cfg.max_iters = cfg.default_hooks.checkpoint.interval = 1
            elif folder in ('upernet', 'linear'):
                cfg.train_cfg.update(max_iters=2, val_interval=2)
                cfg.default_hooks.checkpoint.interval = 2
            elif folder != 'encoding':
                cfg.train_cfg.update(max_epochs=1, val_interval=1)
            cfg.dump(home / f'configs/{folder}/{name}.py')


def write_data(home, world):
    """Put the simulated world where the configs look for data."""
    data, coco = home / 'data', home / 'data/coco'
    (coco / 'annotations').mkdir(parents=True)
    (data / 'ade').mkdir()
    (data / 'nsd').symlink_to(world / 'nsd')
    for subject in ('subj01', 'subj02'):
        (home / 'masks' / subject).mkdir(parents=True)
        shutil.copy(NSDLayout(world / 'nsd').roi_file(subject, 'nsdgeneral'), home / f'masks/{subject}/lesion.nii.gz')
    (data / 'ade/ADEChallengeData2016').symlink_to(world / 'ADEChallengeData2016')
    for split in ('train2017', 'val2017'):
        (coco / split).symlink_to(world / 'coco' / split)
        for kind, folder in (('instances', 'coco'), ('captions', 'coco_stimuli')):
            name = f'{kind}_{split}.json'
            shutil.copy(world / folder / 'annotations' / name, coco / 'annotations' / name)
    shutil.copy(coco / 'annotations/instances_val2017.json', home)
    for name, image in zip(('cat.jpg', 'street.jpg'), sorted((coco / 'val2017').iterdir())):
        shutil.copy(image, home / name)
    algonauts_tree.write_tree(data / 'algonauts')
    (data / 'fsaverage').symlink_to(data / 'algonauts/fsaverage')


def outcome(home, command):
    """Type a command in this process; return None, or what went wrong."""
    if '{ids}' in command:
        from mmnfn.nsd import ROIStore

        command = command.replace('{ids}', ' '.join(str(i) for i in ROIStore('data/nsd_store/subj01.h5').image_id[:2]))
    command, _, out = command.partition(' > ')
    words = [
        found
        for word in shlex.split(command)[1:]
        for found in (sorted(map(str, Path().glob(word))) if '*' in word else [word])
    ]
    spec = importlib.util.spec_from_file_location('typed', home / words[0])
    module = importlib.util.module_from_spec(spec)
    with contextlib.ExitStack() as stack:
        if out:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(out, 'w'))))
        stack.callback(setattr, sys, 'argv', sys.argv)
        sys.argv = words
        try:
            spec.loader.exec_module(module)
            code = module.main()
        except (Exception, SystemExit):
            return traceback.format_exc()
    return None if code == 0 else f'exit code {code}'
