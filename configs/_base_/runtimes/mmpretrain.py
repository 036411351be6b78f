default_scope = 'mmpretrain'
default_hooks = dict(
    # Hands losses to the log at its interval: reading them in each step would wait for the GPU as often.
    runtime_info=dict(type='mmnfn.IntervalInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Whole files, and the state of the random numbers: what --resume needs to go on as if nothing had happened.
    checkpoint=dict(type='mmnfn.ResumableCheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
env_cfg = dict(
    cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl')
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
custom_hooks = [
    # Stops if a checkpoint did not load wholly, and says how many of its weights arrived.
    dict(type='mmnfn.LoadAuditHook'),
    # Writes the backbone's weights beside every checkpoint: backbone_epoch_N.pth and backbone_latest.pth.
    dict(type='mmnfn.ExportBackboneHook'),
    # --resume goes on with the batches and random numbers of the interrupted run.
    dict(type='mmnfn.ResumeEpochHook'),
    # A loss or gradient that is NaN or infinite ends training before it is in a checkpoint.
    dict(type='mmnfn.NonFiniteLossHook'),
]
