# Shared by slurm_train.sh and slurm_test.sh; sourced, not run.
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHON=${PYTHON:-python}
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
CPUS_PER_TASK=${CPUS_PER_TASK:-5}
export PYTHONPATH="$(dirname "$TOOLS")${PYTHONPATH:+:$PYTHONPATH}"

# run_slurm SCRIPT [arguments]; becomes srun, whose exit code is this script's.
run_slurm() {
    local resources=(--ntasks="$GPUS" --cpus-per-task="$CPUS_PER_TASK")
    if [ "$GPUS_PER_NODE" != 0 ]; then
        resources+=(--gres="gpu:$GPUS_PER_NODE" --ntasks-per-node="$GPUS_PER_NODE")
    fi
    # SRUN_ARGS is a list of arguments and is split on purpose.
    # shellcheck disable=SC2086
    exec srun -p "$PARTITION" --job-name="$JOB_NAME" "${resources[@]}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
        "$PYTHON" -u "$@"
}
