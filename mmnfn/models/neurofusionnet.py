"""NeuroFusionNet: an image backbone pretrained with fMRI guidance."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from mmengine.dist import get_dist_info
from mmengine.structures import BaseDataElement
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from torch import Tensor, nn

from mmnfn.losses import gather_features, gather_sizes, reduce_rois
from mmnfn.registry import MODELS
from mmnfn.structures import SubjectGeometry

from .fmri_encoder import FMRIFeatures
from .image_head import ImageFeatures
from .subject_adapter import SubjectAdapter

LOSS_NAMES = ('con', 'bfg', 'fus', 'enc')
Responses = Union[Tensor, List[Tensor]]
Geometry = Union[SubjectGeometry, List[SubjectGeometry]]


def build_with_defaults(cfg: Union[dict, nn.Module], **defaults: Any) -> nn.Module:
    """Build a module from its config and ``defaults`` for what the config leaves out; return a module as it is."""
    return cfg if isinstance(cfg, nn.Module) else MODELS.build({**defaults, **cfg})


def _subjects(responses: Responses, geometry: Geometry) -> List[str]:
    """Name the subject of each of the B samples."""
    groups = zip(responses, geometry) if isinstance(responses, list) else [(responses, geometry)]
    return [subject.subject for own, subject in groups for _ in range(len(own))]


def _full_precision(features):
    """Convert the half-precision tensors of a named tuple to float32."""
    return type(features)(*(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in features))


@MODELS.register_module()
class NeuroFusionNet(BaseSelfSupervisor):
    """Pretrain an image backbone with fMRI guidance: L = λ_con L_con + λ_bfg L_bfg + λ_fus L_fus + λ_enc L_enc.

    The first two are equation 8, the others are not in the paper; each part may be left out.

    The image tower (backbone and neck) and the fMRI tower each give a global feature and K ROI features. L_con
    (equation 6) aligns the global features over the batch, L_bfg (equation 7) the ROI features, and L_fus trains the
    fusion block by masked-ROI prediction. L_con and L_bfg act on the outputs of the towers, so neither modality leaks
    into the other. L_enc needs neither: an encoding head predicts the responses from the backbone's maps through
    receptive fields. Downstream tasks use the backbone alone.

    A batch holds the samples of one subject, or of several subjects one after another: the image tower sees all of them
    at once, the fMRI tower one subject at a time. In distributed training features of all ranks are gathered, and
    gradients are exactly those of one process with the whole batch, even if the ranks' batches differ in size or
    subject.

    Args:
        backbone: Any MMPretrain backbone that returns feature maps; the towers use the last one.
        neck: Config of :class:`ROIImageHead`. Here and below ``type`` may be left out, and K and D default to those of
            the fMRI encoder.
        fmri_encoder: Config of :class:`FMRIEncoder`; None, together with ``neck`` and ``contrastive``, for L_enc alone.
        contrastive: Config of :class:`~mmnfn.losses.ContrastiveLoss`, ``{}`` for its defaults, or of
            :class:`~mmnfn.losses.VICRegLoss`.
        guidance: Config of :class:`~mmnfn.losses.FMRIGuidedLoss`, ``{}`` for its defaults; None trains without L_bfg.
        fusion: Config of :class:`MaskedROIFusion`; None for none.
        encoding: Config of :class:`EncodingHead`; None for none. Without it and fusion the losses are the paper's two.
        loss_weight: λ of ``con``, ``bfg``, ``fus`` and ``enc``; 1 where left out.
        train_maps_only: Train the maps of the subjects (:class:`SubjectAdapter`) and nothing else, which stays in
            evaluation mode: to adapt a trained model to a new person. Without weight decay other people's maps stay as
            they are.
        data_preprocessor: Config of :class:`NFNDataPreprocessor`; None for its defaults.
        pretrained: Checkpoint of a whole NeuroFusionNet to start from. Weights of the backbone alone belong into the
            backbone's ``init_cfg``.
        init_cfg: MMEngine's initialisation.

    Raises:
        ValueError: If K or D differ between the parts, ``loss_weight`` has an unknown name, there is neither an fMRI
            encoder nor an encoding head, or there are no maps to train alone.
    """

    def __init__(
        self,
        backbone: dict,
        neck: Optional[dict] = None,
        fmri_encoder: Optional[dict] = None,
        contrastive: Optional[dict] = None,
        guidance: Optional[dict] = None,
        fusion: Optional[dict] = None,
        encoding: Optional[dict] = None,
        loss_weight: Optional[Dict[str, float]] = None,
        train_maps_only: bool = False,
        data_preprocessor: Optional[Union[dict, nn.Module]] = None,
        pretrained: Optional[str] = None,
        init_cfg: Optional[dict] = None,
    ):
        weights = dict.fromkeys(LOSS_NAMES, 1.0)
        weights.update(loss_weight or {})
        if len(weights) > len(LOSS_NAMES):
            raise ValueError(f'loss_weight must have the names {LOSS_NAMES}, but got {tuple(loss_weight)}')
        encoder = None
        if fmri_encoder is None:
            given = dict(neck=neck, contrastive=contrastive, guidance=guidance, fusion=fusion)
            given = [name for name, part in given.items() if part is not None]
            if given or encoding is None:
                found = f'{", ".join(given)} without fmri_encoder' if given else 'neither fmri_encoder nor encoding'
                raise ValueError(f'there is {found}; give both towers, or encoding alone')
        else:
            encoder, neck, fusion = self._build_towers(neck, fmri_encoder, fusion)
        super().__init__(
            backbone=backbone,
            neck=neck,
            pretrained=pretrained,
            data_preprocessor=build_with_defaults(data_preprocessor or {}, type='mmnfn.NFNDataPreprocessor'),
            init_cfg=init_cfg,
        )
        self.fmri_encoder = encoder
        self.fusion = fusion
        self.encoding = None if encoding is None else build_with_defaults(encoding, type='mmnfn.EncodingHead')
        self.contrastive = None if encoder is None else build_with_defaults(contrastive, type='mmnfn.ContrastiveLoss')
        self.guidance = None if guidance is None else build_with_defaults(guidance, type='mmnfn.FMRIGuidedLoss')
        self.loss_weight = weights
        self.train_maps_only = train_maps_only
        if train_maps_only:
            maps = [module.maps for module in self.modules() if isinstance(module, SubjectAdapter)]
            if not maps:
                raise ValueError('train_maps_only needs maps of subjects: an adapter of the fMRI encoder, or encoding')
            self.requires_grad_(False)
            for own in maps:
                own.requires_grad_(True)

    def train(self, mode: bool = True) -> NeuroFusionNet:
        """Choose the mode; what is frozen by ``train_maps_only`` stays in evaluation mode."""
        super().train(mode)
        for module in self.modules() if self.train_maps_only else ():
            if not any(parameter.requires_grad for parameter in module.parameters()):
                module.eval()
        return self

    @staticmethod
    def _build_towers(neck: dict, fmri_encoder: dict, fusion: Optional[dict]):
        """Build the fMRI encoder, and neck and fusion with its K and D."""
        encoder = build_with_defaults(fmri_encoder, type='mmnfn.FMRIEncoder')
        num_rois, dims = encoder.num_rois, encoder.out_dims
        neck = build_with_defaults(neck, type='mmnfn.ROIImageHead', num_rois=num_rois, out_dims=dims)
        found = dict(neck=(neck.num_rois, neck.out_dims))
        if fusion is not None:
            fusion = build_with_defaults(fusion, type='mmnfn.MaskedROIFusion', num_rois=num_rois, in_dims=dims)
            found['fusion'] = fusion.num_rois, fusion.in_dims
        for part, sizes in found.items():
            if sizes != (num_rois, dims):
                raise ValueError(
                    f'{part} is for {sizes[0]} ROIs of width {sizes[1]}, but the fMRI encoder has {num_rois} roi_names '
                    f'and out_dims={dims}; leave both out of the {part} to take them over'
                )
        return encoder, neck, fusion

    def forward(
        self,
        inputs: Tensor,
        responses: Optional[Responses] = None,
        image_id: Optional[Tensor] = None,
        geometry: Optional[Geometry] = None,
        photo_id: Optional[Tensor] = None,
        noise_ceiling: Optional[Responses] = None,
        mode: str = 'tensor',
        **kwargs,
    ):
        """Train or test on a batch.

        Args:
            inputs: (B, 3, H, W) normalised images; all that mode 'tensor' needs.
            responses: (B, N) z-scored responses of one subject, or a list with one tensor per subject in the order of
                the batch.
            image_id: (B,) int64, 73k id of each image.
            geometry: Geometry of the subject, or a list with one per subject.
            photo_id: (B,) int64, equal for crops of one photograph, which are not negatives of each other; None if
                every image is its own photograph.
            noise_ceiling: (N,) percent, or a list with one tensor per subject: weights of the voxels in L_enc; None
                weighs all alike.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``.
            kwargs: Other entries of the batch, which are ignored.

        Returns:
            The backbone's feature maps in mode 'tensor', else the result of :meth:`loss` or :meth:`predict`.

        Raises:
            ValueError: If ``mode`` is unknown or the batch lacks an entry that it needs.
        """
        if mode == 'tensor':
            return self.extract_feat(inputs)
        if mode not in ('loss', 'predict'):
            raise ValueError(f"mode must be 'tensor', 'loss' or 'predict', but got {mode!r}")
        for name, value in (('responses', responses), ('image_id', image_id), ('geometry', geometry)):
            if value is None:
                raise ValueError(
                    f"{name} is missing in the batch, but mode {mode!r} needs it; for images alone use mode='tensor'"
                )
        if mode == 'loss' and photo_id is not None:
            image_id = photo_id
        if mode == 'predict':
            return self.predict(inputs, responses, image_id, geometry)
        return self.loss(inputs, responses, image_id, geometry, noise_ceiling)

    def _encode(self, feats, responses: Responses, geometry: Geometry) -> Tuple[ImageFeatures, FMRIFeatures]:
        return _full_precision(self.neck(feats)), _full_precision(self.fmri_encoder(responses, geometry))

    def loss(
        self,
        inputs: Tensor,
        responses: Responses,
        image_id: Tensor,
        geometry: Geometry,
        noise_ceiling: Optional[Responses] = None,
    ) -> Dict[str, Tensor]:
        """Compute the losses of a batch; for the arguments see :meth:`forward`.

        Returns:
            ``loss_con``, ``loss_bfg`` (with guidance), ``loss_fus`` (with fusion), ``loss_enc`` (with encoding), each
            times its λ; ``enc_r``, the weighted mean correlation of the voxels drawn; and of the towers the metrics
            ``bfg_<ROI>`` (the ROI's part of L_bfg without λ, averaged over the samples that have the ROI),
            ``temperature`` (σ, which VICReg lacks) and ``batch_top1`` (share of images in the gathered batch whose own
            fMRI feature is the most similar one). All but ``loss_fus`` are the same on every rank.
        """
        feats, losses = self.backbone(inputs), {}
        if self.fmri_encoder is not None:
            image, fmri = self._encode(feats, responses, geometry)
        with torch.autocast(inputs.device.type, enabled=False):
            if self.fmri_encoder is not None:
                losses.update(self._losses(image, fmri, image_id, _subjects(responses, geometry)))
            if self.encoding is not None:
                losses.update(self._encoding_loss(feats, responses, geometry, noise_ceiling))
        return losses

    def _encoding_loss(self, feats, responses: Responses, geometry: Geometry, noise_ceiling) -> Dict[str, Tensor]:
        """Compute L_enc over the gathered batch."""
        rank, world_size = get_dist_info()
        predicted, measured, weight, subject = self.encoding(feats, responses, geometry, noise_ceiling)
        sizes = gather_sizes(len(predicted), rank, world_size, predicted.device)
        predicted, measured, weight, subject = (
            gather_features(values, rank, world_size, sizes=sizes) for values in (predicted, measured, weight, subject)
        )
        if self.training:
            self.encoding.fields.trained_subjects.index_fill_(0, subject, 1)
        loss = self.encoding.loss(predicted, measured, weight, subject, len(self.encoding.fields.subjects))
        return dict(loss_enc=self.loss_weight['enc'] * loss, enc_r=1 - loss.detach())

    def _losses(
        self, image: ImageFeatures, fmri: FMRIFeatures, image_id: Tensor, subjects: List[str]
    ) -> Dict[str, Tensor]:
        rank, world_size = get_dist_info()
        batch_size, num_rois, dims = image.rois.shape
        sizes = gather_sizes(batch_size, rank, world_size, image_id.device)

        adapter = self.fmri_encoder.embedding.adapter
        numbers = [0 if adapter is None else adapter.subjects[name] for name in subjects]
        numbers = torch.tensor(numbers).to(image_id.device, non_blocking=True)
        ids = torch.cat([image_id[:, None], numbers[:, None], fmri.present.to(image_id.dtype)], dim=1)
        ids = gather_features(ids, rank, world_size, sizes=sizes)
        image_ids, present = ids[:, 0], ids[:, 2:].bool()
        if self.training and adapter is not None:
            adapter.trained_subjects.index_fill_(0, ids[:, 1], 1)
        # One tensor needs one round of communication, and ROI features get (zero) gradients even without guidance.
        features = torch.cat([image.context, fmri.context, image.rois.flatten(1), fmri.rois.flatten(1)], dim=1)
        features = gather_features(features, rank, world_size, sizes=sizes)
        image_context, fmri_context, image_rois, fmri_rois = features.split(
            [dims, dims, num_rois * dims, num_rois * dims], dim=1
        )
        image_rois, fmri_rois = image_rois.unflatten(1, (num_rois, dims)), fmri_rois.unflatten(1, (num_rois, dims))

        loss_con = self.contrastive(image_context, fmri_context, image_ids)
        losses = dict(loss_con=self.loss_weight['con'] * loss_con)
        if self.guidance is not None:
            parts = self.guidance(image_rois, fmri_rois, present, image_ids, reduction='none')
            losses['loss_bfg'] = self.loss_weight['bfg'] * reduce_rois(parts, present, self.guidance.reduction)
            by_roi = parts.detach().sum(dim=0) / present.sum(dim=0).clamp(min=1)
            losses.update({f'bfg_{name}': part for name, part in zip(self.fmri_encoder.roi_names, by_roi)})
        if self.fusion is not None:
            # A mean over the local samples, weighted so that the average over ranks is the mean over all samples.
            share = world_size * batch_size / sum(sizes)
            losses['loss_fus'] = self.loss_weight['fus'] * share * self.fusion.loss(image, fmri, sizes, rank)
        losses.update(self.contrastive.metrics(image_context, fmri_context, image_ids))
        return losses

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, responses: Responses, image_id: Tensor, geometry: Geometry
    ) -> List[BaseDataElement]:
        """Embed a batch; for the arguments see :meth:`forward`.

        Returns:
            B elements with ``image_embedding`` and ``fmri_embedding`` (D,), ``image_roi_embeddings`` and
            ``fmri_roi_embeddings`` (K, D), all L2-normalised (zero for a ROI that the subject lacks), ``roi_present``
            (K,), ``image_id`` (int) and ``subject`` (str); with fusion also ``fused_embedding`` (E,), which has seen
            both modalities and is not meant for retrieval, see :class:`~mmnfn.models.fusion.FusedFeatures`; with
            encoding ``predicted_responses`` (N,), whose scale means nothing.
        """
        feats, fields = self.backbone(inputs), {}
        if self.fmri_encoder is not None:
            image, fmri = self._encode(feats, responses, geometry)
            fields.update(
                image_embedding=F.normalize(image.context, dim=1),
                fmri_embedding=F.normalize(fmri.context, dim=1),
                image_roi_embeddings=F.normalize(image.rois, dim=2),
                fmri_roi_embeddings=F.normalize(fmri.rois, dim=2),
                roi_present=fmri.present,
                roi_maps=image.maps * fmri.present[:, :, None, None],
            )
            if self.fusion is not None:
                fields['fused_embedding'] = self.fusion(image, fmri).fused
        if self.encoding is not None:
            sizes = [len(own) for own in responses] if isinstance(responses, list) else [len(responses)]
            geometries = geometry if isinstance(geometry, list) else [geometry]
            groups = zip(*(feat.split(sizes) for feat in self.encoding.maps(feats)))
            groups = list(zip(groups, geometries))
            fields['predicted_responses'] = [row for maps, own in groups for row in self.encoding.predict(maps, own)]
            fields['roi_maps'] = torch.cat([self.encoding.roi_maps(maps, own) for maps, own in groups])
        subjects = _subjects(responses, geometry)
        return [
            BaseDataElement(
                image_id=int(image_id[i]),
                subject=subjects[i],
                **{name: value[i] for name, value in fields.items()},
            )
            for i in range(len(inputs))
        ]
