"""Compare two checkpoints on the same test images: PCC by ROI, retrieval or mIoU, with intervals and a figure.

Example:
    python tools/experiments/compare.py backbone.pth random.pth --config configs/encoding/swin-s_nsd.py
    python tools/experiments/compare.py comparison/A comparison/B --out again

With --config, A and B are checkpoints, which are tested here; their predictions stay in OUT/A and OUT/B. Without it
they are predictions of tools/test.py --dump, or folders with such files of the same name, e.g. two rows of a study.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from mmnfn.engine.run_config import need_file, report_error
from mmnfn.experiments.comparison import as_text, compare_files, write_comparison
from mmnfn.utils import UserError

TEST = Path(__file__).resolve().parents[1] / 'test.py'


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('a', metavar='A', help='a checkpoint, a file of predictions, or a folder of them')
    parser.add_argument('b', metavar='B', help='what it is compared with; differences are A − B')
    parser.add_argument('--config', help='config to test both checkpoints with: encoding, retrieval or segmentation')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the config')
    parser.add_argument('--out', type=Path, default=Path('comparison'), help='folder to write; default ./comparison')
    return parser.parse_args(argv)


def test(args, checkpoint, folder):
    """Test a checkpoint; return the file of its predictions."""
    options = ['--cfg-options', *args.cfg_options] if args.cfg_options else []
    flags = ['--dump', folder / 'predictions.pkl', '--work-dir', folder, *options]
    done = subprocess.run([sys.executable, *map(str, [TEST, args.config, checkpoint, *flags])])
    if done.returncode:
        raise UserError(f'the test of {checkpoint} failed; its message is above.')
    return folder / 'predictions.pkl'


def main(argv=None):
    """Compare; returns the exit code."""
    args = parse_args(argv)
    try:
        found = [Path(args.a), Path(args.b)]
        for path in (args.a, args.b) if args.config else ():
            need_file(path, 'A, B', 'With --config they are checkpoints.')
        for path in () if args.config else found:
            if path.suffix != '.pkl' and not path.is_dir():
                raise UserError(f'A, B: {path} is no folder and no .pkl file of predictions; checkpoints need --config')
        if args.config:
            found = [test(args, path, args.out / name) for path, name in zip(found, 'AB')]
        table, note = compare_files(*found)
        print(as_text(table).to_string(index=False), note, sep='\n\n', end='\n\n')
        print('\n'.join(map(str, write_comparison(table, note, (args.a, args.b), args.out))))
    except (OSError, ValueError) as error:
        return report_error('compare.py', error)
    return 0


if __name__ == '__main__':
    sys.exit(main())
