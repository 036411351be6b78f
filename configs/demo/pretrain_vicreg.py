# configs/nfn/pretrain_nsd_vicreg.py made small, like pretrain.py.
_base_ = 'pretrain_contrastive.py'
model = dict(contrastive=dict(_delete_=True, type='mmnfn.VICRegLoss'), loss_weight=dict(con=0.04))
