"""Images and brain responses in one space."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
import torch
from mmengine.config import Config
from PIL import Image, ImageOps
from torch import nn
from torch.nn import functional as F

from mmnfn.datasets.geometry import subject_geometry
from mmnfn.nsd import ROIStore
from mmnfn.structures import SubjectGeometry

from .model import get_model

ImageLike = Union[str, Path, np.ndarray, Image.Image]


def config_image_size(cfg: Optional[Config]) -> int:
    """Find the side of the images of a config's data, in pixels.

    Raises:
        ValueError: The config does not tell.
    """
    for name in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
        file = Path(str(((cfg or {}).get(name) or {}).get('dataset', {}).get('images', ''))).name
        match = re.fullmatch(r'images_(\d+)\.h5', file)
        if match or file == 'nsd_stimuli.hdf5':
            return int(match[1]) if match else 425
    raise ValueError('image_size: the config does not tell the size of its images, so give image_size.')


def read_image(image: ImageLike) -> np.ndarray:
    """Read an image in any of its forms as (H, W, 3) uint8 RGB, turned as its EXIF tag says.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no image, or it has more than 8 bits a channel.
    """
    if isinstance(image, (str, Path)):
        if not Path(image).is_file():
            raise FileNotFoundError(f'images: there is no file {str(image)!r}.')
        try:
            with Image.open(image) as opened:
                return read_image(ImageOps.exif_transpose(opened))
        except Exception as error:  # Pillow raises many kinds for a damaged file
            raise ValueError(f'images: {image} is no image that can be read: {error}') from error
    if isinstance(image, Image.Image):
        if image.mode[0] in 'IF':  # 16 bits and more, which Pillow would clip at 255
            raise ValueError(f"images: its values are of Pillow's mode {image.mode!r}; give 8 bits a channel.")
        return np.array(image.convert('RGB'))
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f'{image.dtype} {image.shape}' if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f'images: an array must be (H, W, 3) uint8 RGB, but found {found}.')
    return image


def centre_square(image: np.ndarray, size: int) -> np.ndarray:
    """Cut an image to the square in its middle and resize it to (size, size, 3), as tools/prepare_nsd.py does."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    image = image[top : top + side, left : left + side]
    if side == size:
        return image
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)


class Ranking(NamedTuple):
    """Hold the best k of m entries for each of n queries.

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
        top: k; None for all m.

    Raises:
        ValueError: The embeddings have different D.
    """
    queries, gallery = np.atleast_2d(queries), np.atleast_2d(gallery)
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(f'queries have D={queries.shape[1]}, but the gallery has D={gallery.shape[1]}.')
    queries, gallery = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, gallery))
    similarity = (queries @ gallery.T).astype(np.float32)
    index = np.argsort(-similarity, axis=1, kind='stable')[:, :top]
    return Ranking(index, np.take_along_axis(similarity, index, axis=1))


class BrainImageRetriever:
    """Embed images and brain responses with a trained NeuroFusionNet, and find one by the other::

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
        image_size: Side in pixels of the images that the model sees; None takes it from the config's image file,
            ``images_224.h5`` or ``nsd_stimuli.hdf5`` (425).
        batch_size: Images or responses that are embedded at once.

    Raises:
        FileNotFoundError, ValueError: See :func:`get_model`; ValueError also for a model without an fMRI encoder, or
            where ``image_size`` must be given.
    """

    rank = staticmethod(rank)

    def __init__(
        self,
        model: Union[str, Path, Config, nn.Module],
        checkpoint: Union[str, Path, None] = None,
        device: Union[str, torch.device] = 'cpu',
        image_size: Optional[int] = None,
        batch_size: int = 64,
    ):
        self.model = model if isinstance(model, nn.Module) else get_model(model, checkpoint, device)
        if getattr(self.model, 'fmri_encoder', None) is None:
            raise ValueError(
                f'model: {type(self.model).__name__} has no fMRI encoder; give a pretraining config (configs/nfn).'
            )
        self.image_size = image_size or config_image_size(getattr(self.model, 'cfg', None))
        self.batch_size = batch_size
        self.device = next(self.model.parameters()).device

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
        if isinstance(images, (str, Path, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim < 4):
            images = [images]

        def context(chosen: slice) -> torch.Tensor:
            squares = [centre_square(read_image(image), self.image_size) for image in images[chosen]]
            batch = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
            inputs = self.model.data_preprocessor(dict(inputs=batch))['inputs']
            return self.model.neck(self.model.extract_feat(inputs)).context

        return self._embed(context, len(images))

    def embed_responses(
        self, responses: np.ndarray, subject: Union[SubjectGeometry, ROIStore, str, Path]
    ) -> np.ndarray:
        """Embed responses of one subject.

        Args:
            responses: (n, V) z-scored responses in the voxel order of the subject's ROI store, 0 where a voxel has no
                data; with a geometry (n, N) in its voxel order. A single one (V,) is taken as n = 1.
            subject: The ROI store or its file, from which the voxels of the model's ROIs are taken, in the order of its
                training; or a geometry, as :func:`mmnfn.datasets.subject_geometry` and ``NSDDataset`` give it.

        Returns:
            (n, D) float32 of unit length.

        Raises:
            FileNotFoundError, ValueError: If the store cannot be read or lacks an ROI, or the responses do not fit the
                subject or hold NaN or infinite values.
        """
        responses = np.atleast_2d(np.asarray(responses))
        voxels: Any = slice(None)
        if not isinstance(subject, SubjectGeometry):
            store = subject if isinstance(subject, ROIStore) else ROIStore(subject)
            if responses.ndim != 2 or responses.shape[1] != len(store.ncsnr):
                raise ValueError(
                    f'responses have shape {responses.shape}, but must be (n, {len(store.ncsnr)}): one value for each '
                    f'voxel of {store.path}.'
                )
            dataset = (getattr(self.model, 'cfg', {}).get('train_dataloader') or {}).get('dataset', {})
            names = ('voxel_order', 'permute_rois', 'permute_positions')
            arrangement = {name: dataset[name] for name in names if name in dataset}
            subject, voxels = subject_geometry(store, self.roi_names, **arrangement)
        if not np.isfinite(responses[:, voxels]).all():
            raise ValueError('responses hold NaN or infinite values; set voxels without data to 0.')
        geometry = subject._replace(coordinates=subject.coordinates.to(self.device))

        def context(chosen: slice) -> torch.Tensor:
            batch = responses[chosen][:, voxels].astype(np.float32)
            return self.model.fmri_encoder(torch.from_numpy(batch).to(self.device), geometry).context

        return self._embed(context, len(responses))

    @property
    def roi_names(self) -> Tuple[str, ...]:
        """Name the ROI classes that the model knows, in its order."""
        return self.model.fmri_encoder.roi_names

    @torch.no_grad()
    def _embed(self, context: Callable[[slice], torch.Tensor], count: int) -> np.ndarray:
        """Normalise what a tower says of each batch."""
        parts = [np.zeros((0, self.model.fmri_encoder.out_dims), np.float32)]
        for start in range(0, count, self.batch_size):
            embedding = context(slice(start, start + self.batch_size))
            parts.append(F.normalize(embedding.float(), dim=1).cpu().numpy())
        return np.concatenate(parts)
