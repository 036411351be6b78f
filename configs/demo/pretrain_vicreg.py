# pretrain.py with VICReg in place of the contrastive loss. Its weights 25, 25 and 1 times .04 are of the size of the other
# losses.
_base_ = 'pretrain.py'
model = dict(contrastive=dict(_delete_=True, type='mmnfn.VICRegLoss'), loss_weight=dict(con=0.04))
