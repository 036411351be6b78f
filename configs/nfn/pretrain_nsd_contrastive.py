# The losses between the towers alone, L_con and L_bfg, without L_enc.
_base_ = 'pretrain_nsd.py'
model = dict(encoding=None)
test_evaluator = dict(_delete_=True, type='mmnfn.RetrievalMetric')
