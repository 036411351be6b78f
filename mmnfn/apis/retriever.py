"""Images and brain responses in one space."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from torch import nn
from torch.nn import functional as F

from mmnfn.datasets.geometry import subject_geometry
from mmnfn.nsd import ROIStore
from mmnfn.structures import SubjectGeometry

from .images import ImageLike, centre_square, config_image_size, read_image
from .model import get_model


class Ranking(NamedTuple):
    """The best k of m entries for each of n queries.

    Attributes:
        index: (n, k) int64, entries in descending order of similarity.
        similarity: (n, k) float32, cosines.
    """

    index: np.ndarray
    similarity: np.ndarray


def rank(queries: np.ndarray, gallery: np.ndarray, top: Optional[int] = None) -> Ranking:
    """Order a gallery by cosine similarity to each query; of equal entries the earlier comes first.

    Args:
        queries: (n, D), e.g. responses; one query (D,) is taken as n = 1.
        gallery: (m, D), e.g. images.
        top: k, at most m; None for all.

    Raises:
        ValueError: The embeddings have different D, or ``top`` is below 1.
    """
    queries, gallery = np.atleast_2d(queries), np.atleast_2d(gallery)
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(f'queries have D={queries.shape[1]}, but the gallery has D={gallery.shape[1]}.')
    if top is not None and top < 1:
        raise ValueError(f'top is {top}; it must be at least 1, or None for all.')
    queries, gallery = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, gallery))
    similarity = (queries @ gallery.T).astype(np.float32)
    index = np.argsort(-similarity, axis=1, kind='stable')[:, :top]
    return Ranking(index, np.take_along_axis(similarity, index, axis=1))


class BrainImageRetriever:
    """Embeds images and brain responses with a trained NeuroFusionNet, and finds one by the other::

        retriever = BrainImageRetriever('configs/nfn/pretrain_nsd.py', 'work_dirs/pretrain_nsd/epoch_100.pth')
        store = ROIStore('data/nsd_store/subj01.h5')
        brains = retriever.embed_responses(store.responses[:10], store)
        images = retriever.embed_images(['cat.jpg', 'street.jpg'])
        index, similarity = retriever.rank(brains, images)

    Embeddings are (n, D) float32 arrays of unit length, D being ``out_dims`` of the fMRI encoder; those of images and
    of all subjects that the model was trained with are comparable.

    Args:
        model: Config file or config; or a model from :func:`get_model`, which leaves ``checkpoint`` and ``device``
            unused.
        checkpoint: Training checkpoint; None for the weights that the config gives.
        device: E.g. 'cuda:0'.
        image_size: Side in pixels of the images that the model sees; None takes that of the config's picture file,
            ``images_224.h5`` or ``nsd_stimuli.hdf5`` (425).
        batch_size: Images or responses that are embedded at once.

    Raises:
        FileNotFoundError, ValueError: See :func:`get_model`; ValueError also for a model without an fMRI encoder, or
            where ``image_size`` must be given.
    """

    def __init__(
        self,
        model: Union[str, Path, Config, nn.Module],
        checkpoint: Union[str, Path, None] = None,
        device: Union[str, torch.device] = 'cpu',
        image_size: Optional[int] = None,
        batch_size: int = 64,
    ):
        self.model = model if isinstance(model, nn.Module) else get_model(model, checkpoint, device)
        if not hasattr(self.model, 'fmri_encoder'):
            raise ValueError(
                f'model: {type(self.model).__name__} has no fMRI encoder; give a pretraining config (configs/nfn).'
            )
        self.image_size = image_size or config_image_size(getattr(self.model, 'cfg', None))
        self.batch_size = batch_size

    @property
    def roi_names(self) -> Tuple[str, ...]:
        """ROI classes that the model knows, in its order."""
        return self.model.fmri_encoder.roi_names

    @property
    def arrangement(self) -> Dict[str, Any]:
        """Order of the voxels, and what a control permuted, when the model was trained: what
        :meth:`~mmnfn.datasets.ROIStore.geometry` needs to arrange voxels in the same way."""
        dataset = (getattr(self.model, 'cfg', {}).get('train_dataloader') or {}).get('dataset', {})
        names = ('voxel_order', 'permute_rois', 'permute_positions')
        return {name: dataset[name] for name in names if name in dataset}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def embed_images(self, images: Union[ImageLike, Sequence[ImageLike]]) -> np.ndarray:
        """Embed images.

        As NSD did with its stimuli, images are cut to the square in their middle; then they are resized.

        Args:
            images: n paths, (H, W, 3) uint8 RGB arrays or PIL images, also mixed, or an array (n, H, W, 3); a single
                one is taken as n = 1.

        Returns:
            (n, D) float32 of unit length.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: Something is no image.
        """
        single = isinstance(images, (str, Path, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim < 4)
        images = [images] if single else images
        parts: List[np.ndarray] = []
        for start in range(0, len(images), self.batch_size):
            pictures = [
                centre_square(read_image(image), self.image_size) for image in images[start : start + self.batch_size]
            ]
            batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
            inputs = self.model.data_preprocessor(dict(inputs=batch))['inputs']
            parts.append(self._embedding(self.model.neck(self.model.extract_feat(inputs)).context))
        return np.concatenate(parts) if parts else self._none()

    @torch.no_grad()
    def embed_responses(
        self, responses: np.ndarray, subject: Union[SubjectGeometry, ROIStore, str, Path]
    ) -> np.ndarray:
        """Embed responses of one subject.

        Args:
            responses: (n, V) z-scored responses in the voxel order of the subject's ROI store, 0 where a voxel has no
                data; with a geometry (n, N) in its voxel order. A single one (V,) is taken as n = 1.
            subject: The ROI store or its file, from which the voxels of the model's ROIs are taken; or a geometry, as
                ``ROIStore.geometry`` and ``NSDDataset`` give it.

        Returns:
            (n, D) float32 of unit length.

        Raises:
            FileNotFoundError, ValueError: If the store cannot be read or lacks an ROI, or the responses do not fit the
                subject or hold NaN or infinite values.
        """
        responses = np.atleast_2d(np.asarray(responses))
        if isinstance(subject, (str, Path)):
            subject = ROIStore(subject)
        voxels: Any = slice(None)
        if isinstance(subject, ROIStore):
            store = subject
            if responses.ndim != 2 or responses.shape[1] != len(store.ncsnr):
                raise ValueError(
                    f'responses have shape {responses.shape}, but must be (n, {len(store.ncsnr)}): one value for each '
                    f'voxel of {store.path}.'
                )
            subject, voxels = subject_geometry(store, self.roi_names, **self.arrangement)
        geometry = subject._replace(coordinates=subject.coordinates.to(self.device))
        parts: List[np.ndarray] = []
        for start in range(0, len(responses), self.batch_size):
            batch = responses[start : start + self.batch_size][:, voxels].astype(np.float32)
            if not np.isfinite(batch).all():
                raise ValueError(
                    f'responses hold {int((~np.isfinite(batch)).sum())} values that are NaN or infinite among '
                    f'{start}…{start + len(batch) - 1}; set voxels without data to 0.'
                )
            features = self.model.fmri_encoder(torch.from_numpy(batch).to(self.device), geometry)
            parts.append(self._embedding(features.context))
        return np.concatenate(parts) if parts else self._none()

    rank = staticmethod(rank)

    def _none(self) -> np.ndarray:
        return np.zeros((0, self.model.fmri_encoder.out_dims), np.float32)

    @staticmethod
    def _embedding(context: torch.Tensor) -> np.ndarray:
        return F.normalize(context.float(), dim=1).cpu().numpy()
