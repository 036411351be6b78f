# Shared by dist_train.sh and dist_test.sh; sourced, not run.
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHON=${PYTHON:-python}
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
export PYTHONPATH="$(dirname "$TOOLS")${PYTHONPATH:+:$PYTHONPATH}"

# need_file NAME PATH: every process would report a missing file, and torchrun a failed process for each.
need_file() {
    if [ ! -f "$2" ] && [[ $2 != *://* ]]; then
        echo "$(basename "$0"): error: $1: there is no file '$2' (looked from $PWD)." >&2
        exit 2
    fi
}

free_port() {
    "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# cores_for PROCESSES: cores of this machine that each of them gets.
cores_for() {
    "$PYTHON" -c "import os; cores = getattr(os, 'sched_getaffinity', lambda _: range(os.cpu_count()))(0); print(max(1, len(cores) // $1))"
}

# run_distributed PROCESSES SCRIPT [arguments]; becomes the launcher, whose exit code is this script's.
run_distributed() {
    local processes=$1
    shift
    if ! [[ $processes =~ ^[1-9][0-9]*$ ]]; then
        echo "$(basename "$0"): error: GPUS is '$processes'; expected the number of processes on this machine, 1 or more." >&2
        exit 2
    fi
    if ! command -v "$PYTHON" >/dev/null; then
        echo "$(basename "$0"): error: there is no command '$PYTHON'; activate the environment (source .venv/bin/activate) or set PYTHON." >&2
        exit 2
    fi
    # The processes share the cores, where torchrun would give one to each.
    if [ "$processes" -gt 1 ]; then export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(cores_for "$processes")}; fi
    if [ -z "$PORT" ]; then
        if [ "$NNODES" = 1 ]; then PORT=$(free_port); else PORT=29500; fi
    fi
    exec "$PYTHON" -m torch.distributed.run \
        --nnodes="$NNODES" \
        --node_rank="$NODE_RANK" \
        --master_addr="$MASTER_ADDR" \
        --master_port="$PORT" \
        --nproc_per_node="$processes" \
        "$@"
}
