"""Packaging of mmnfn; the settings of the tools are in pyproject.toml, the tested versions in requirements/."""

import atexit
import re
import shutil
import tempfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def version() -> str:
    """Read the version without importing the package, which needs mmengine."""
    return re.search(r"^__version__ = '(.+)'$", (ROOT / 'mmnfn' / 'version.py').read_text('utf-8'), re.M).group(1)


def readme() -> str:
    path = ROOT / 'README.md'
    return path.read_text(encoding='utf-8') if path.exists() else ''


class FreshBuild(build):
    """Build in a temporary directory: one left in the tree would put files renamed since into the next wheel."""

    def finalize_options(self):
        if self.build_base == 'build':
            self.build_base = tempfile.mkdtemp(prefix='mmnfn-build-')
            atexit.register(shutil.rmtree, self.build_base, ignore_errors=True)
        super().finalize_options()


class BuildWithMim(build_py):
    """Put configs, tools and the model index into the wheel as ``mmnfn/.mim``, where ``mim`` looks for them.

    They are copied into the build directory, so the source tree gets neither copies nor links. An editable install
    needs none of them: its configs and tools are those of the repository.
    """

    SUFFIXES = ('.py', '.sh', '.yml', '.md')

    def mim_files(self):
        """Pairs of a source file and its place in the build directory."""
        target = Path(self.build_lib) / 'mmnfn' / '.mim'
        files = [ROOT / 'model-index.yml']
        for folder in ('configs', 'studies', 'tools'):
            files += sorted(path for path in (ROOT / folder).rglob('*') if path.suffix in self.SUFFIXES)
        files = [path for path in files if ROOT / 'tools' / 'dev' not in path.parents]
        return [(path, target / path.relative_to(ROOT)) for path in files if path.is_file()]

    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        for source, target in self.mim_files():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)

    def get_outputs(self, include_bytecode=1):
        mim_files = [] if getattr(self, 'editable_mode', False) else self.mim_files()
        return super().get_outputs(include_bytecode) + [str(target) for _, target in mim_files]


setup(
    name='mmnfn',
    version=version(),
    description='Brain-guided pretraining of image backbones (NeuroFusionNet) for MMPretrain, MMDetection and '
    'MMSegmentation',
    long_description=readme(),
    long_description_content_type='text/markdown',
    author='mmnfn contributors',
    license='Apache-2.0',
    keywords='computer vision, neuroscience, fMRI, pretraining, OpenMMLab',
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.9',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    python_requires='>=3.9',
    packages=find_packages(include=['mmnfn', 'mmnfn.*']),
    entry_points={'console_scripts': ['mmnfn-nsd = mmnfn.nsd.cli:main']},
    package_data={'mmnfn.experiments': ['*.html']},
    cmdclass={'build': FreshBuild, 'build_py': BuildWithMim},
    # mmnfn.nsd needs no more than these. The rest of mmnfn also needs PyTorch, mmengine, mmcv and mmpretrain, whose
    # distributions are called differently in the two stacks (mmcv, mmcv-lite, onedl-mmcv): mmnfn/stack.py checks them.
    install_requires=[
        'numpy',
        'h5py',
        'matplotlib',
        'nibabel',
        'pandas',
        'pillow',
        'pycocotools',
        'rich',
        'safetensors',
        'scipy',
        'tqdm',
    ],
    extras_require={
        # Names of the official stack; with OneDL: pip install onedl-mmdetection onedl-mmsegmentation.
        # ftfy and regex are imported by mmsegmentation, but not among its requirements.
        'downstream': ['mmdet>=3.3.0,<4', 'mmsegmentation>=1.2.2,<2', 'ftfy', 'regex'],
        'clip': ['open_clip_torch'],  # the caption baseline
        'study': ['submitit'],  # studies through Slurm
        'report': ['jinja2', 'nilearn', 'grad-cam'],
        'test': ['pytest>=7', 'ruff'],
    },
    zip_safe=False,
)
