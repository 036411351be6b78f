#!/usr/bin/env bash
# Run the full-size configs on small samples of real data, a few iterations each, on any machine.
#
#   tools/dev/real_smoke.sh [REAL_DATA]
#
# REAL_DATA (default: ../shared/data beside the repository) holds coco128/ and ade20k_sample/. Photographs, annotations and
# label maps are real, the brain responses are simulated. The metrics at the end show that everything runs together; they are
# no benchmark. PYTHON chooses the interpreter, PROCESSES (1) the processes of each training, KEEP=1 keeps the work folder.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
REAL_DATA=$(realpath -m "${1:-$ROOT/../shared/data}")
export PYTHON=${PYTHON:-python}
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
PROCESSES=${PROCESSES:-1}

for folder in coco128/train2017 coco128/annotations ade20k_sample; do
    if [ ! -d "$REAL_DATA/$folder" ]; then
        echo "real_smoke.sh: skipped: there is no $REAL_DATA/$folder; give the folder of the samples as argument." >&2
        exit 77
    fi
done

WORK=$(mktemp -d "${TMPDIR:-/tmp}/mmnfn_real_smoke.XXXXXX")
if [ -z "${KEEP:-}" ]; then trap 'rm -rf "$WORK"' EXIT; fi
RESULTS=$WORK/results.txt
cd "$WORK"

# step NAME COMMAND …: run a command with its output in NAME.log, and add its time to the results.
step() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name"
    if ! "$@" >"$WORK/$name.log" 2>&1; then
        tail -n 40 "$WORK/$name.log" >&2
        echo "real_smoke.sh: $name failed" >&2
        exit 1
    fi
    echo "$name: $((SECONDS - start)) s" >>"$RESULTS"
}

train() { step "$1" bash "$ROOT/tools/dist_train.sh" "$2" "$PROCESSES" --work-dir "$WORK/$1" "${@:3}"; }
test_model() { step "$1" bash "$ROOT/tools/dist_test.sh" "$2" "$3" 1 --work-dir "$WORK/$1" --out "$WORK/$1.json"; }

# Settings of all trainings: iterations instead of epochs, a constant learning rate.
short() {
    cat <<CONFIG
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=$1)
val_cfg = val_dataloader = val_evaluator = None
param_scheduler = []
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=$1, save_optimizer=False), logger=dict(interval=1))
log_processor = dict(by_epoch=False, window_size=1)
CONFIG
}

step data "$PYTHON" "$ROOT/tools/dev/lay_out_real_data.py" "$REAL_DATA" "$WORK/data"
cat data.log

# 1. Pretraining of both full-size backbones with the photographs as stimuli.
step simulate "$PYTHON" "$ROOT/tools/simulate_nsd.py" data/sim --subjects 2 --sessions 1 --images \
    "$REAL_DATA/coco128/train2017" --annotations "$REAL_DATA/coco128/annotations/instances_train2017.json"
step prepare "$PYTHON" "$ROOT/tools/prepare_nsd.py" data/sim/nsd data/nsd_store --image-size 224
for config in pretrain_nsd pretrain_nsd_convnext-s; do
    { echo "_base_ = ['$ROOT/configs/nfn/$config.py']"
      short 3
      cat <<CONFIG
dataset = dict(data_root='$WORK/data/nsd_store', subjects=[1, 2])
loader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
train_dataloader = dict(batch_size=4, **loader)
test_dataloader = dict(batch_size=32, **loader)
CONFIG
    } >"$config.py"
    train "$config" "$config.py"
    test_model "test_$config" "$config.py" "$config/iter_3.pth"
done

# 2. Mask R-CNN on photographs, 96 to train, 32 to test, at 320 pixels. After so little training scores are low; all are shown.
{ echo "_base_ = ['$ROOT/configs/mask_rcnn/mask-rcnn_nfn-swin-s_fpn_1x_coco.py']"
  short 5
  cat <<CONFIG
model = dict(
    backbone=dict(init_cfg=dict(checkpoint='$WORK/pretrain_nsd/backbone_latest.pth')),
    test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=20)))
data_root = '$WORK/data/coco/'
loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
train_dataloader = dict(sampler=dict(_delete_=True, type='InfiniteSampler'), **loader)
test_dataloader = loader
test_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
CONFIG
} >mask-rcnn.py
train mask-rcnn mask-rcnn.py --cfg-options 'train_dataloader.dataset.pipeline.2.scale=(320,320)'
step test_mask-rcnn bash "$ROOT/tools/dist_test.sh" mask-rcnn.py mask-rcnn/iter_5.pth 1 --work-dir "$WORK/test_mask-rcnn" \
    --out "$WORK/test_mask-rcnn.json" --cfg-options 'test_dataloader.dataset.pipeline.1.scale=(320,320)'

# 3. UPerNet on the ADE20K images, crops of 256 pixels.
{ echo "_base_ = ['$ROOT/configs/upernet/nfn-swin-s_upernet_8xb2-160k_ade20k-512x512.py']"
  short 5
  cat <<CONFIG
model = dict(
    data_preprocessor=dict(size=(256, 256)),
    backbone=dict(init_cfg=dict(checkpoint='$WORK/pretrain_nsd/backbone_latest.pth')))
loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root='$WORK/data/ADEChallengeData2016'))
train_dataloader = loader
test_dataloader = loader
CONFIG
} >upernet.py
train upernet upernet.py --cfg-options 'train_dataloader.dataset.pipeline.3.crop_size=(256,256)'
test_model test_upernet upernet.py upernet/iter_5.pth

echo "== results (real photographs and annotations, simulated brains; no benchmark)"
cat "$RESULTS"
for config in pretrain_nsd pretrain_nsd_convnext-s mask-rcnn upernet; do
    echo "$config, loss by iteration: $(grep -oE 'Iter\(train\).* loss: [0-9.]+' "$config.log" | grep -oE '[0-9.]+$' | tr '\n' ' ')"
    "$PYTHON" - "$config" "test_$config.json" <<'SCRIPT'
import json
import sys

name, path = sys.argv[1:]
metrics = {key: value for key, value in json.load(open(path)).items() if isinstance(value, (int, float))}
wanted = {'coco/bbox_mAP': ('APbox', 100), 'coco/segm_mAP': ('APsegm', 100)}
for key, value in metrics.items():
    label, factor = wanted.get(key, (key, 1))
    print(f'{name}, {label}: {value * factor:.4g}')
SCRIPT
done
