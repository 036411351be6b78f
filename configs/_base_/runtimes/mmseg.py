default_scope = 'mmseg'
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Whole files, and the state of the random numbers.
    checkpoint=dict(type='mmnfn.ResumableCheckpointHook', by_epoch=False, interval=16000),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
env_cfg = dict(
    cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl')
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')
custom_hooks = [
    # Stops if a checkpoint did not load wholly, and says how many of its weights arrived.
    dict(type='mmnfn.LoadAuditHook'),
    # --resume goes on with the batches and random numbers of the interrupted run.
    dict(type='mmnfn.ResumeEpochHook'),
    # A loss or gradient that is NaN or infinite ends training before it is in a checkpoint.
    dict(type='mmnfn.NonFiniteLossHook'),
]
randomness = dict(seed=0)
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
tta_model = dict(type='SegTTAModel')
