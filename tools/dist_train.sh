#!/usr/bin/env bash
# Train with several processes: on GPUs (NCCL), or on a CPU machine (gloo).
#
#   tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
#
# GPUS is the number of processes on this machine. Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT, the same
# MASTER_ADDR and PORT on all of them. On one machine an unset PORT is a free one, so that two runs do not meet.
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [arguments of tools/train.py]" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
shift 2
source "$(dirname "$0")/dist_common.sh"
need_file CONFIG "$CONFIG"

run_distributed "$GPUS" "$TOOLS/train.py" "$CONFIG" --launcher pytorch "$@"
