"""Print what others need to know of this machine to help: paste it into an issue.

Example:
    python tools/collect_env.py
"""

import argparse
import sys
from importlib import metadata, util

LIBRARIES = """
torch torchvision numpy scipy h5py nibabel pycocotools open_clip_torch nilearn grad-cam
mmengine mmengine-lite mmcv mmcv-lite mmpretrain mmdet mmsegmentation
onedl-mmengine onedl-mmcv onedl-mmpretrain onedl-mmdetection onedl-mmsegmentation
""".split()


def main(argv=None):
    """Print one line for each fact; returns the exit code, 1 where mmnfn cannot be imported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    print(f'Python: {sys.version}')
    for name in LIBRARIES:
        try:
            print(f'{name}: {metadata.version(name)}')
        except metadata.PackageNotFoundError:
            continue
    try:
        from mmengine.utils.dl_utils import collect_env

        import mmnfn
        from mmnfn.engine.provenance import source_revision
    except ImportError as error:  # then the libraries are what is wrong
        print(f'mmnfn cannot be imported: {error}')
        return 1
    print(f'mmnfn: {mmnfn.__version__}, revision {source_revision()}')
    print(f'mmcv.ops: {"there" if util.find_spec("mmcv._ext") else "missing: detection and segmentation need them"}')
    for name, value in collect_env().items():
        if name not in ('Python', 'numpy_random_seed'):
            print(f'{name}: {str(value).strip()}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
