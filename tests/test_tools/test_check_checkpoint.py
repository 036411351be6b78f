"""check_checkpoint.py tells by its exit code and its last line whether a checkpoint loads into a config."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmnfn.engine.checkpoint import export_random

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
TOOL = 'model_converters/check_checkpoint'


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """An export of the demo's backbone, as its pretraining writes it."""
    path = str(tmp_path_factory.mktemp('export') / 'backbone.pth')
    export_random(Config.fromfile(CONFIGS / 'demo/pretrain.py'), path)
    return path


@pytest.mark.parametrize('library, name', [('mmdet', 'mask-rcnn_micro_fpn'), ('mmseg', 'upernet_micro')])
def test_full_load_downstream(run, exported, library, name):
    pytest.importorskip(library)
    code, out, _ = run(TOOL, CONFIGS / f'demo/{name}_demo.py', exported)
    lines = out.splitlines()
    assert code == 0 and lines[-1] == 'Every weight arrived.'
    assert lines[-2].startswith('backbone: 89 of 89 tensors loaded from') and 'norm0.weight, norm0.bias' in lines[-2]
    assert any('stages.2.blocks.1.norm1.weight' in line for line in lines)


def test_incomplete_load(run, exported):
    pytest.importorskip('mmdet')
    options = ['--cfg-options', 'model.backbone.arch.depths=[1,1,4,1]']
    code, out, _ = run(TOOL, CONFIGS / 'demo/mask-rcnn_micro_fpn_demo.py', exported, *options)
    assert code == 1 and 'stages.2 has 2 blocks there and 4 here' in out.splitlines()[-1]
    code, out, _ = run(TOOL, CONFIGS / 'demo/mask-rcnn_micro_fpn_demo.py', exported, '--whole')
    assert code == 1 and 'does not load into the model: it lacks' in out and 'neck' in out.splitlines()[-1]


def test_whole_model_without_init_cfg_and_unreadable_files(run, exported, tmp_path):
    config = CONFIGS / 'demo/encoding.py'
    code, out, _ = run(TOOL, config, exported)
    assert code == 0 and 'model: 85 of 85 tensors loaded' in out
    code, out, err = run(TOOL, config, tmp_path / 'nothing.pth')
    assert code == 2 and out == '' and 'error: CHECKPOINT: there is no file' in err
    (tmp_path / 'cut.pth').write_bytes(Path(exported).read_bytes()[:-100])
    code, out, err = run(TOOL, config, tmp_path / 'cut.pth')
    assert code == 2 and out == '' and 'cut.pth is no checkpoint, or a damaged one' in err
