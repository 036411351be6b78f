#!/usr/bin/env bash
# Test with several processes: on GPUs (NCCL), or on a CPU machine (gloo).
#
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
#
# GPUS, NNODES, NODE_RANK, MASTER_ADDR and PORT as in dist_train.sh.
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [arguments of tools/test.py]" >&2
    exit 2
fi
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
shift 3
source "$(dirname "$0")/dist_common.sh"
need_file CONFIG "$CONFIG"
need_file CHECKPOINT "$CHECKPOINT"

run_distributed "$GPUS" "$TOOLS/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "$@"
