"""A CLIP checkpoint as an :class:`~cliper.encoders.base.Encoder`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cliper.checkpoints import ResolvedCheckpoint
from cliper.checkpoints.clip import read_clip_config, read_clip_weights
from cliper.checkpoints.clip_config import ClipConfig
from cliper.devices import convert_out_of_memory
from cliper.encoders.base import Encoder, ImageFeatures, ProxyAffinity
from cliper.encoders.text import TextTower
from cliper.encoders.vision import VisionTower
from cliper.ops.recipes import Recipe
from cliper.pretrained import check_problems

__all__ = ["ClipEncoder", "load_clip", "load_encoder"]


class ClipEncoder:
    """Image and text tower of a CLIP, or of another family; implements the protocol ``Encoder``.

    Args:
        config: family and shape of the towers.
        weights: all that the configuration describes, by the names of :meth:`.ClipConfig.shapes`.
        folder: of the checkpoint, for its tokenizer.
    """

    def __init__(self, config: ClipConfig, weights: Mapping[str, Tensor], folder: Path) -> None:
        self.vision = VisionTower(config.vision, weights)
        self.text = TextTower(config.text, weights, folder)
        self.patch_size = self.vision.patch_size
        self.num_layers = self.vision.num_layers
        self.embedding_width = self.vision.embedding_width
        self.pixel_mean = config.pixel_mean
        self.pixel_std = config.pixel_std
        kernel = weights["vision_model.embeddings.patch_embedding.weight"]
        self.device: torch.device = kernel.device
        self.dtype: torch.dtype = kernel.dtype

    def encode_images(
        self,
        pixels: Tensor,
        *,
        recipe: Recipe,
        attention: str | ProxyAffinity,
        layers: Sequence[int],
        window: int = 0,
        window_context: bool = False,
        whole_image: bool = False,
    ) -> list[ImageFeatures]:
        """See :meth:`VisionTower.encode`."""
        return self.vision.encode(
            pixels.to(self.device),
            recipe=recipe,
            attention=attention,
            layers=layers,
            window=window,
            window_context=window_context,
            whole_image=whole_image,
        )

    def patch_features(self, pixels: Tensor, layer: int) -> Tensor:
        """See :meth:`VisionTower.patch_features`."""
        return self.vision.patch_features(pixels.to(self.device), layer)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """See :meth:`TextTower.encode`."""
        return self.text.encode(texts)

    def text_fingerprint(self) -> str:
        """See :attr:`TextTower.fingerprint`."""
        return self.text.fingerprint


def load_encoder(checkpoint: ResolvedCheckpoint, *, device: torch.device, dtype: torch.dtype) -> Encoder:
    """Load the encoder of a checkpoint that :func:`cliper.checkpoints.check_folder` accepted.

    Raises:
        CheckpointError, ResourceError: as :func:`load_clip`.
    """
    return load_clip(checkpoint.folder, device=device, dtype=dtype, activation=checkpoint.activation)


def load_clip(folder: Path, *, device: torch.device, dtype: torch.dtype, activation: str | None = None) -> ClipEncoder:
    """Load a CLIP checkpoint from a folder that :func:`cliper.checkpoints.check_folder` accepted.

    Args:
        folder: in the format of ``transformers`` or OpenCLIP, or a weight file of OpenCLIP or OpenAI.
        device, dtype: of the weights.
        activation: as for :func:`.read_open_clip_config`; only for such weights.

    Raises:
        CheckpointError: weights are missing or damaged, or do not fit ``config.json``.
        ResourceError: memory ran out.
    """
    with convert_out_of_memory(f"loading {folder}", "use a smaller model, or a machine with more memory"):
        config = read_clip_config(folder, activation)
        weights, problems = read_clip_weights(folder, config, device, dtype)
        check_problems(folder, problems)
        return ClipEncoder(config, weights, folder)
