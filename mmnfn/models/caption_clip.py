"""The caption baseline: CLIP training of the same backbone on the same images, with captions in place of brains."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from mmengine.dist import get_dist_info
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from torch import Tensor, nn

from mmnfn.losses import gather_features, gather_sizes
from mmnfn.registry import MODELS
from mmnfn.structures import SubjectGeometry

from .image_head import context_mlp, last_feature_maps
from .neurofusionnet import build_with_defaults


@MODELS.register_module()
class ContextHead(BaseModule):
    """Project a feature map to the context feature alone: global average pooling, then an MLP.

    The context part of :class:`ROIImageHead`.

    Args:
        in_channels: Channels of the backbone's last feature map.
        out_dims: D.
        hidden_dims: Hidden width of the MLP; None for ``in_channels``.
        init_cfg: MMEngine's initialisation.
    """

    def __init__(
        self,
        in_channels: int,
        out_dims: int = 256,
        hidden_dims: Optional[int] = None,
        init_cfg: Optional[dict] = None,
    ):
        super().__init__(init_cfg)
        self.in_channels, self.out_dims = in_channels, out_dims
        self.context = context_mlp(in_channels, hidden_dims, out_dims)

    def forward(self, feats: Union[Tensor, Sequence[Tensor]]) -> Tensor:
        """Turn the backbone's output, whose last map is (B, C, h, w), into the context feature (B, D).

        Raises:
            ValueError: If the last output is not a map of ``in_channels`` channels.
        """
        (feat,) = last_feature_maps(feats, (self.in_channels,))
        return self.context(feat.mean(dim=(2, 3)))


@MODELS.register_module()
class CLIPTextEncoder(BaseModule):
    """Encode captions with open_clip's tokenizer and text transformer, starting from random weights.

    Args:
        out_dims: D.
        width: Width of the transformer; 512 in open_clip's ViT-B.
        heads: Attention heads; 8 in ViT-B.
        layers: Layers; 12 in ViT-B.
        context_length: Tokens of a caption; longer captions are cut.
        init_cfg: MMEngine's initialisation.

    Raises:
        ImportError: If open_clip is not installed.
    """

    def __init__(
        self,
        out_dims: int = 256,
        width: int = 512,
        heads: int = 8,
        layers: int = 12,
        context_length: int = 77,
        init_cfg: Optional[dict] = None,
    ):
        super().__init__(init_cfg)
        try:
            from open_clip.tokenizer import SimpleTokenizer
            from open_clip.transformer import TextTransformer
        except ImportError as error:
            raise ImportError(
                f'the caption baseline needs open_clip ({error}). Install it: pip install open_clip_torch.'
            ) from error
        self.tokenizer = SimpleTokenizer(context_length=context_length)
        self.out_dims = out_dims
        self.transformer = TextTransformer(
            context_length=context_length,
            vocab_size=self.tokenizer.vocab_size,
            width=width,
            heads=heads,
            layers=layers,
            output_dim=out_dims,
        )

    def forward(self, captions: Sequence[str]) -> Tensor:
        """Encode B captions to features (B, D)."""
        tokens = self.tokenizer(list(captions))
        return self.transformer(tokens.to(self.transformer.positional_embedding.device))


@MODELS.register_module()
class CaptionCLIP(BaseSelfSupervisor):
    """Pretrain a backbone with image–caption contrast, for comparison with :class:`NeuroFusionNet`.

    Backbone, context head, loss, batches and trainer are those of NeuroFusionNet; the only difference is that an image
    is matched with one of its COCO captions instead of the brain's response. Features of all ranks are gathered.

    Args:
        backbone: Any MMPretrain backbone that returns feature maps; its last one is used.
        neck: Config of :class:`ContextHead`. Here and below ``type`` may be left out, and D defaults to that of the
            text encoder.
        text_encoder: Config of :class:`CLIPTextEncoder`.
        contrastive: Config of :class:`~mmnfn.losses.ContrastiveLoss`, ``{}`` for its defaults.
        data_preprocessor: Config of :class:`NFNDataPreprocessor`; None for its defaults.
        init_cfg: MMEngine's initialisation.

    Raises:
        ValueError: If D differs between the parts.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        text_encoder: dict,
        contrastive: dict,
        data_preprocessor: Optional[Union[dict, nn.Module]] = None,
        init_cfg: Optional[dict] = None,
    ):
        encoder = build_with_defaults(text_encoder, type='mmnfn.CLIPTextEncoder')
        neck = build_with_defaults(neck, type='mmnfn.ContextHead', out_dims=encoder.out_dims)
        if neck.out_dims != encoder.out_dims:
            raise ValueError(
                f'neck has out_dims={neck.out_dims}, but the text encoder has out_dims={encoder.out_dims}; leave it '
                'out of the neck to take it over'
            )
        super().__init__(
            backbone=backbone,
            neck=neck,
            data_preprocessor=build_with_defaults(data_preprocessor or {}, type='mmnfn.NFNDataPreprocessor'),
            init_cfg=init_cfg,
        )
        self.text_encoder = encoder
        self.contrastive = build_with_defaults(contrastive, type='mmnfn.ContrastiveLoss')

    def forward(
        self,
        inputs: Tensor,
        caption: Optional[List[str]] = None,
        image_id: Optional[Tensor] = None,
        geometry: Optional[SubjectGeometry] = None,
        photo_id: Optional[Tensor] = None,
        mode: str = 'tensor',
        **kwargs,
    ):
        """Train or test on a batch.

        Args:
            inputs: (B, 3, H, W) normalised images; all that mode 'tensor' needs.
            caption: B captions.
            image_id: (B,) int64, 73k id of each image.
            geometry: Geometry of the subject who saw the images; only its name is used.
            photo_id: (B,) int64, see :meth:`NeuroFusionNet.forward`.
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
        if caption is None or image_id is None:
            raise ValueError(
                f'caption or image_id is missing in the batch, but mode {mode!r} needs both; put '
                "dict(type='mmnfn.LoadCaption', …) before mmnfn.PackNSDInputs in the pipeline"
            )
        if mode == 'loss':
            return self.loss(inputs, caption, image_id if photo_id is None else photo_id)
        return self.predict(inputs, caption, image_id, geometry)

    def loss(self, inputs: Tensor, caption: List[str], image_id: Tensor) -> Dict[str, Tensor]:
        """Compute the losses of a batch; for the arguments see :meth:`forward`.

        Returns:
            ``loss_con`` and the metrics ``temperature`` and ``batch_top1``, see :meth:`NeuroFusionNet.loss`.
        """
        features = torch.cat([self.neck(self.extract_feat(inputs)), self.text_encoder(caption)], dim=1).float()
        with torch.autocast(inputs.device.type, enabled=False):
            rank, world_size = get_dist_info()
            sizes = gather_sizes(len(features), rank, world_size, image_id.device)
            image_ids = gather_features(image_id[:, None], rank, world_size, sizes=sizes)[:, 0]
            image, text = gather_features(features, rank, world_size, sizes=sizes).chunk(2, dim=1)
            return dict(
                loss_con=self.contrastive(image, text, image_ids),
                **self.contrastive.metrics(image, text, image_ids),
            )

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, caption: List[str], image_id: Tensor, geometry: Optional[SubjectGeometry] = None
    ) -> List[BaseDataElement]:
        """Embed a batch; for the arguments see :meth:`forward`.

        Returns:
            B elements with ``image_embedding`` and ``text_embedding`` (D,), L2-normalised, ``image_id`` (int),
            ``caption`` and ``subject`` (str, empty without ``geometry``).
        """
        image = F.normalize(self.neck(self.extract_feat(inputs)).float(), dim=1)
        text = F.normalize(self.text_encoder(caption).float(), dim=1)
        subject = '' if geometry is None else geometry.subject
        return [
            BaseDataElement(
                image_embedding=image[i],
                text_embedding=text[i],
                image_id=int(image_id[i]),
                caption=caption[i],
                subject=subject,
            )
            for i in range(len(inputs))
        ]
