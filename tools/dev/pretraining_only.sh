#!/usr/bin/env bash
# Show that pretraining needs only MMPretrain and mmcv-lite: make an environment without MMDetection, MMSegmentation and
# mmcv's compiled operators, simulate, prepare, pretrain, test, encode and publish in it, and run the tests of these parts.
#
#   tools/dev/pretraining_only.sh [FOLDER]
#
# FOLDER (default: a temporary one) keeps the environment for the next call. PYTHON (python3) is a Python that the official
# stack supports.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-python3}
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    WORK=$(realpath "$1")
else
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/mmnfn_pretraining_only.XXXXXX")
    trap 'rm -rf "$WORK"' EXIT
fi

if [ ! -f "$WORK/.complete" ]; then
    "$PYTHON" -m venv --clear "$WORK/venv"
    install="$WORK/venv/bin/python -m pip --disable-pip-version-check install -q"
    $install 'pip>=23' -r "$ROOT/requirements/official/torch.txt"
    $install --no-build-isolation --no-deps -r "$ROOT/requirements/official/mmcv-lite.txt"
    $install -r "$ROOT/requirements/official/torch.txt" -r "$ROOT/requirements/official/mmcv-lite.txt" \
        -r "$ROOT/requirements/official/mmpretrain.txt" -r "$ROOT/requirements/runtime.txt" 'pytest>=8'
    touch "$WORK/.complete"
fi
"$WORK/venv/bin/python" -m pip --disable-pip-version-check install -q --no-deps --no-build-isolation --force-reinstall "$ROOT"
export PATH="$WORK/venv/bin:$PATH" PYTHON="$WORK/venv/bin/python"

python - <<'CHECK'
import importlib.util
import mmcv
from importlib import metadata

for name in ('mmdet', 'mmseg', 'mmcv._ext'):
    assert importlib.util.find_spec(name) is None, f'{name} is there'
print('mmcv-lite', metadata.version('mmcv-lite'), 'mmpretrain', metadata.version('mmpretrain'))
CHECK

rm -rf "$WORK/run"
mkdir "$WORK/run"
cd "$WORK/run"
small=(default_hooks.checkpoint.interval=1 train_cfg.max_epochs=1 train_cfg.val_interval=1 param_scheduler.1.end=2
    train_dataloader.dataset.subjects=[1] val_dataloader.dataset.subjects=[1] test_dataloader.dataset.subjects=[1])
set -x
python "$ROOT/tools/simulate_nsd.py" data/sim --subjects 2 --sessions 1 --voxel-mm 6 --stimulus-size 64
python "$ROOT/tools/prepare_nsd.py" data/sim/nsd data/sim/store --image-size 64
bash "$ROOT/tools/dist_train.sh" "$ROOT/configs/demo/pretrain.py" 2 --work-dir work --cfg-options "${small[@]}" >train.log 2>&1 ||
    { tail -n 40 train.log; exit 1; }
python "$ROOT/tools/test.py" "$ROOT/configs/demo/pretrain.py" work/epoch_1.pth --out retrieval.json \
    --cfg-options "${small[@]}" >test.log 2>&1 || { tail -n 40 test.log; exit 1; }
python "$ROOT/tools/test.py" "$ROOT/configs/demo/encoding.py" work/backbone_latest.pth --out encoding.json \
    --cfg-options test_dataloader.dataset.subjects=[2] >encode.log 2>&1 || { tail -n 40 encode.log; exit 1; }
python "$ROOT/tools/model_converters/publish_model.py" work/epoch_1.pth published --name toy
set +x
grep -o '"retrieval/image_to_brain_top1": [0-9.]*' retrieval.json
grep -o '"encoding/pcc": [-0-9.]*' encoding.json

cd "$ROOT"
python -m pytest -q -p no:cacheprovider tests/test_losses tests/test_models tests/test_nsd tests/test_datasets tests/test_simulation \
    tests/test_evaluation/test_retrieval.py tests/test_evaluation/test_encoding.py tests/test_stack.py
