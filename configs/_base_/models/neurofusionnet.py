# NeuroFusionNet with the paper's settings: Conv1D 32/16, windows of 64 tokens every 32, 2 layers, six ROIs. The leaf
# config sets backbone, and in_channels of neck and encoding. What the paper leaves open (widths, heads, temperatures,
# weights) is decided here.
model = dict(
    type='mmnfn.NeuroFusionNet',
    neck=dict(type='mmnfn.ROIImageHead'),
    fmri_encoder=dict(
        type='mmnfn.FMRIEncoder',
        roi_names=('prf-visualrois', 'floc-bodies', 'floc-faces', 'floc-places', 'floc-words', 'streams'),
        embed_dims=128,
        out_dims=256,
        num_heads=4,
        kernel_size=32,
        stride=16,
        window_size=64,
        window_stride=32,
        num_layers=2,
        # Not in the paper: a term of the subject's own in each token, from a vector for each voxel that varies smoothly
        # over the cortex. adapter=None is the paper's form, kind='table' the linear layer per subject of MindEye2.
        adapter=dict(kind='fourier'),
    ),
    # Not in the paper: responses predicted from the backbone's maps through receptive fields.
    encoding=dict(type='mmnfn.EncodingHead'),
    contrastive=dict(type='mmnfn.ContrastiveLoss'),
    # negatives='roi' is the paper's form; 'roi+batch' also tells the same ROI of different images apart, without which
    # constant ROI codes minimise the loss.
    guidance=dict(type='mmnfn.FMRIGuidedLoss', negatives='roi+batch'),
    loss_weight=dict(con=1.0, bfg=1.0, enc=5.0),
)
