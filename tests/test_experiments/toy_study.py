"""A study of toy tools, which write what they were asked for and a line in a log."""

import sys
from pathlib import Path

import yaml
from rich.console import Console

from mmnfn.experiments import read_study, runner

TRAIN = """
import argparse, os, sys, time
from pathlib import Path
parser = argparse.ArgumentParser()
for name in ('config', '--work-dir', '--resume'):
    parser.add_argument(name)
parser.add_argument('--cfg-options', nargs='*', default=[])
args = parser.parse_args()
folder = Path(args.work_dir)
with open(os.environ['TOY_LOG'], 'a') as log:
    log.write(f'train {folder.parent.parent.name} {folder.parent.name} {folder.name} {" ".join(args.cfg_options)}\\n')
if 'fail' in folder.parts:
    sys.exit('train.py: error: the reason')
if os.environ.get('TOY_SLEEP') and not (folder / 'slept').exists():
    (folder / 'slept').write_text(str(os.getpid()))
    time.sleep(600)
(folder / 'epoch_1.pth').write_text('weights')
(folder / 'backbone_latest.pth').write_text('weights')
(folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
"""
TEST = """
import argparse, json, os
from pathlib import Path
parser = argparse.ArgumentParser()
for name in ('config', '--work-dir', '--out', '--dump'):
    parser.add_argument(name)
parser.add_argument('checkpoint', nargs='?')
parser.add_argument('--cfg-options', nargs='*')
args = parser.parse_args()
assert args.checkpoint is None or Path(args.checkpoint).read_text() == 'weights'
with open(os.environ['TOY_LOG'], 'a') as log:
    log.write(f'test {args.checkpoint}\\n')
Path(args.out).write_text(json.dumps(dict(score=1.0)))
if args.dump:
    Path(args.dump).write_text('embeddings')
"""
CONTENT = dict(
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
                detect=dict(config='configs/detect.py', dump=True), encode=dict(config='configs/encode.py', train=False)
            ),
        )
    ),
)


class Toy:
    """A repository of toy tools in a folder, and studies in it."""

    def __init__(self, folder):
        self.root, self.work, self.path = folder / 'root', folder / 'work', folder / 'study.yml'
        for name in ('tools', 'configs'):
            (self.root / name).mkdir(parents=True)
        (self.root / 'tools/train.py').write_text(TRAIN)
        (self.root / 'tools/test.py').write_text(TEST)
        for name in ('pretrain', 'detect', 'encode'):
            self.write_config(name, '')
        (folder / 'given.pth').write_text('weights')

    def write_config(self, name, text):
        (self.root / f'configs/{name}.py').write_text(f'name = {name!r}\n{text}\n')

    def read(self, **changes):
        """Read the study, with other entries in its file."""
        self.path.write_text(yaml.safe_dump({**CONTENT, **changes}, sort_keys=False))
        return read_study(self.path, self.root, self.work)

    def run(self, study, workers=1, redo=False):
        """Run a study; job → state."""
        return runner.run_locally(study, study.jobs, Console(quiet=True), workers, redo)

    def command(self):
        """Command line of a process that runs the study."""
        code = f"""
import signal
from pathlib import Path
from rich.console import Console
from mmnfn.experiments import read_study, runner
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore Ctrl-C
study = read_study({str(self.path)!r}, Path({str(self.root)!r}), {str(self.work)!r})
runner.run_locally(study, study.jobs, Console(), 2)
"""
        return [sys.executable, '-c', code]

    @staticmethod
    def log():
        """Read the lines that the tools have written."""
        return Path('log').read_text().splitlines() if Path('log').exists() else []
