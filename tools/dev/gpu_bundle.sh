#!/usr/bin/env bash
# Collect the wheels (under 50 MB) that benchmarks/gpu.py needs besides PyTorch, for a GPU machine without network.
#
#   tools/dev/gpu_bundle.sh OUT
#
# The machine is x86-64 Linux with Python 3.12 and has torch, torchvision, numpy, scipy, h5py, pandas, pillow and PyYAML (tried
# with torch 2.11). Nothing is compiled there. On it, in a checkout:
#
#   python3 -m pip install --no-index --no-deps --target /tmp/bundle OUT/*.whl
#   PYTHONPATH=/tmp/bundle:. python3 benchmarks/gpu.py --json gpu.json
#
# Pretraining needs neither mmcv's operators nor MMDetection and MMSegmentation, so they are left out. It does not need OpenCV
# either, but mmcv and MMPretrain import it; if the machine has none, benchmarks/gpu.py puts an empty module in its place.
# PYTHON (python3) chooses the interpreter that collects.
set -euo pipefail
if [ $# -ne 1 ]; then
    echo 'usage: tools/dev/gpu_bundle.sh OUT' >&2
    exit 2
fi
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "$1"
OUT=$(realpath "$1")
if [ -n "$(ls -A "$OUT")" ]; then
    echo "gpu_bundle.sh: $OUT is not empty; name a new folder" >&2
    exit 2
fi
pip() { "${PYTHON:-python3}" -m pip --disable-pip-version-check "$@"; }
pinned() {
    for name in "$@"; do
        grep -hE "^$name==" "$ROOT"/requirements/{runtime,onedl/mmcv,onedl/openmmlab}.txt
    done
}
built=$(pinned onedl-mmcv onedl-mmpretrain)
downloaded=$(pinned onedl-mmengine onedl-mmpretrain nibabel pycocotools)

# Bypass pip's cache: a wheel without operators must not be installed where they are needed.
MMCV_WITH_OPS=0 pip wheel -q --no-cache-dir --no-deps -w "$OUT" $built
platforms=$(printf -- '--platform manylinux%s_x86_64 ' _2_28 _2_17 2014 _2_12)
pip download -q --find-links "$OUT" -d "$OUT" --only-binary=:all: --python-version 3.12 --implementation cp $platforms \
    $downloaded tqdm
rm -f "$OUT"/{numpy,scipy,pillow,pyyaml}-*.whl  # the machine has these
size=$(du -sm "$OUT" | cut -f1)
echo "$OUT: $(ls "$OUT" | wc -l) wheels, $size MB"
[ "$size" -lt 50 ] || { echo "gpu_bundle.sh: that is not less than 50 MB" >&2; exit 1; }
