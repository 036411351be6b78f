"""A study of toy tools, which write what they were asked for and a line in a log."""

import sys
from pathlib import Path

from rich.console import Console

from mmnfn.experiments import launch

TRAIN = """
import argparse, json, os, sys, time
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument('config')
parser.add_argument('--work-dir')
parser.add_argument('--resume')
parser.add_argument('--cfg-options', nargs='*', default=[])
args = parser.parse_args()
folder = Path(args.work_dir)
with open(os.environ['TOY_LOG'], 'a') as log:
    log.write(f'train {folder.parent.parent.name} {folder.parent.name} {folder.name} {" ".join(args.cfg_options)}\\n')
if 'fail' in folder.parts:
    sys.exit(3)
if os.environ.get('TOY_SLEEP') and not (folder / 'slept').exists():
    (folder / 'slept').touch()
    time.sleep(600)
(folder / 'epoch_1.pth').write_text('weights')
(folder / 'backbone_latest.pth').write_text('weights')
(folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
"""
TEST = """
import argparse, json, os
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument('config')
parser.add_argument('checkpoint')
parser.add_argument('--work-dir')
parser.add_argument('--out')
parser.add_argument('--dump')
parser.add_argument('--cfg-options', nargs='*', default=[])
args = parser.parse_args()
assert Path(args.checkpoint).read_text() == 'weights'
with open(os.environ['TOY_LOG'], 'a') as log:
    log.write(f'test {args.checkpoint}\\n')
Path(args.out).write_text(json.dumps(dict(score=1.0)))
if args.dump:
    Path(args.dump).write_text('embeddings')
"""
READ = """
from pathlib import Path
from rich.console import Console
from mmnfn.experiments import launch, read_study
from mmnfn.experiments.job import run_job
study = read_study({study!r}, Path({root!r}), {work!r})
"""
STUDY = dict(
    name='toy',
    work_dir='unused',
    seeds=[0, 5],
    backbones=dict(
        swin=dict(
            pretrain=dict(
                nfn=dict(config='configs/pretrain.py', options={'data.shuffle': '{seed}'}),
                given=dict(checkpoint='given.pth', transfer=['encode']),
            ),
            transfer=dict(
                detect=dict(config='configs/detect.py'), encode=dict(config='configs/encode.py', train=False)
            ),
        )
    ),
)


def write_tools(root):
    """A repository of toy tools and configs."""
    for folder in ('tools', 'configs'):
        (root / folder).mkdir(parents=True)
    (root / 'tools/train.py').write_text(TRAIN)
    (root / 'tools/test.py').write_text(TEST)
    for name in ('pretrain', 'detect', 'encode'):
        (root / f'configs/{name}.py').write_text(f'name = {name!r}\n')


def command(folder, call):
    """That of a process which reads the study in a folder and calls something of it."""
    places = dict(study=str(folder / 'study.yml'), root=str(folder / 'root'), work=str(folder / 'work'))
    return [sys.executable, '-c', READ.format(**places) + call]


def log():
    """Lines that the tools have written in the current folder."""
    return Path('log').read_text().splitlines() if Path('log').exists() else []


def run(study, workers=1, redo=False, **selection):
    """Run a study here; job → state."""
    return launch.run_locally(study, launch.select(study, **selection), Console(quiet=True), workers, redo)
