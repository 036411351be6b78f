# MMDetection's runtime with whole checkpoint files, exact resuming and the load audit.
_base_ = 'mmdet::_base_/default_runtime.py'
default_hooks = dict(checkpoint=dict(type='mmnfn.ResumableCheckpointHook'))
custom_hooks = [
    # Stops if a checkpoint did not load wholly, and says how many of its weights arrived.
    dict(type='mmnfn.LoadAuditHook'),
    # --resume goes on with the batches and random numbers of the interrupted run.
    dict(type='mmnfn.ResumeEpochHook'),
    # A loss or gradient that is NaN or infinite ends training before it is in a checkpoint.
    dict(type='mmnfn.NonFiniteLossHook'),
]
randomness = dict(seed=0)
