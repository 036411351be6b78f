# VICReg (Bardes et al. 2022) in place of the contrastive loss. Its weights 25, 25 and 1 are multiplied by .04, which
# makes it about as large as the other losses.
#   tools/dist_train.sh configs/nfn/pretrain_nsd_vicreg.py 2
_base_ = 'pretrain_nsd_contrastive.py'
model = dict(contrastive=dict(_delete_=True, type='mmnfn.VICRegLoss'), loss_weight=dict(con=0.04))
