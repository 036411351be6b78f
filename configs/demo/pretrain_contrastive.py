# configs/nfn/pretrain_nsd_contrastive.py made small for two CPU cores.
_base_ = 'pretrain.py'
model = dict(encoding=None)
test_evaluator = dict(_delete_=True, type='mmnfn.RetrievalMetric')
