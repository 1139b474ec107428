"""A CLIP checkpoint in ``transformers`` format as an :class:`~cliper.encoders.base.Encoder`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cliper.encoders.base import ImageFeatures, ProxyAffinity
from cliper.encoders.text import TextTower
from cliper.encoders.vision import VisionTower
from cliper.ops.recipes import Recipe
from cliper.pretrained import load_pretrained

__all__ = ["ClipEncoder", "load_clip"]

# Normalisation in the training of OpenAI's and OpenCLIP's checkpoints.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipEncoder:
    """Image and text tower of a CLIP; implements the protocol ``Encoder``.

    Args:
        model: a ``transformers.CLIPModel``; only its parameters are read.
        folder: of the checkpoint, for its tokenizer.
    """

    def __init__(self, model: Any, folder: Path) -> None:
        self.vision = VisionTower(model.vision_model, model.visual_projection)
        self.text = TextTower(model, folder)
        self.patch_size = self.vision.patch_size
        self.num_layers = self.vision.num_layers
        self.embedding_width = self.vision.embedding_width
        self.pixel_mean = _MEAN
        self.pixel_std = _STD
        self.device: torch.device = model.visual_projection.weight.device
        self.dtype: torch.dtype = model.visual_projection.weight.dtype

    def encode_images(
        self, pixels: Tensor, *, recipe: Recipe, attention: str | ProxyAffinity, layers: Sequence[int], window: int = 0
    ) -> list[ImageFeatures]:
        """See :meth:`VisionTower.encode`."""
        return self.vision.encode(
            pixels.to(self.device), recipe=recipe, attention=attention, layers=layers, window=window
        )

    def patch_features(self, pixels: Tensor, layer: int) -> Tensor:
        """See :meth:`VisionTower.patch_features`."""
        return self.vision.patch_features(pixels.to(self.device), layer)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """See :meth:`TextTower.encode`."""
        return self.text.encode(texts)

    def text_fingerprint(self) -> str:
        """See :meth:`TextTower.fingerprint`."""
        return self.text.fingerprint()


def load_clip(folder: Path, *, device: torch.device, dtype: torch.dtype) -> ClipEncoder:
    """Load a CLIP checkpoint from a folder that :func:`cliper.checkpoints.check_folder` accepted.

    Raises:
        CheckpointError: weights are missing or damaged, or do not fit ``config.json``.
        ResourceError: memory ran out.
    """
    from transformers import CLIPModel

    return ClipEncoder(load_pretrained(CLIPModel, folder, dtype).to(device), folder)
