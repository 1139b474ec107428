"""DINO, DINOv2 and DINOv3 as refiners: class maps are propagated between similar patches.

Source: arXiv 2411.13836; ``docs/method.md``, section 3, last point.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.checkpoints import check_folder
from cliper.ops.position_embedding import interpolate_dino_positions
from cliper.pretrained import load_pretrained
from cliper.refiners.affinity import feature_affinity
from cliper.refiners.base import Affinity, limit_patches, resize_image
from cliper.refiners.feature_refiner import FeatureRefiner
from cliper.settings import Settings

__all__ = ["DinoRefiner"]

# ImageNet's, which all families were trained with.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class DinoRefiner(FeatureRefiner):
    """A ViT of the DINO, DINOv2 or DINOv3 family.

    There is no noise and no chain: the seed and ``refine_mode`` change nothing. Without ``refine_size`` the image is
    resized to whole patches, each side rounded down, however large it is: memory grows with the number of patches,
    time with its square. ``refine_max_patches`` sets a limit.

    Args:
        folder: in ``transformers`` format, of model type ``vit``, ``dinov2`` or ``dinov3_vit``.
        name: for messages.
        device: where to run.
        dtype: of the network; affinities are float32 in any case.

    Raises:
        CheckpointError: weights that are missing or do not fit.
    """

    advice = "lower refine_size or refine_max_patches, or use a refiner with larger patches such as dino-s16"

    def __init__(self, folder: Path, *, name: str, device: torch.device, dtype: torch.dtype) -> None:
        from transformers import AutoModel

        check_folder(folder, "dino")
        self.model: Any = load_pretrained(AutoModel, folder, dtype).to(device)
        super().__init__(name=name, device=device, dtype=dtype, patch_size=self.model.config.patch_size)
        self._prefix = 1 + getattr(self.model.config, "num_register_tokens", 0)  # class token and registers
        embeddings = self.model.embeddings
        if hasattr(embeddings, "position_embeddings"):  # DINOv3 rotates queries and keys instead
            # transformers resizes the table to the exact grid; the code of DINO and DINOv2 does not.
            embeddings.interpolate_pos_encoding = partial(_positions, embeddings.position_embeddings, self.patch_size)

    @torch.inference_mode()
    def affinity(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """The affinity at another model's grid, for ``attention="proxy"``.

        The patch features are resized to that grid bilinearly; the affinity is made of them there.

        Source: arXiv 2411.13836; ``docs/method.md``, section 2, "Proxy attention".

        Args:
            images: [B, 3, H, W] in [0, 1].
            grid: (h, w).

        Returns:
            [B, h * w, h * w] float32, rows sum to 1.

        Raises:
            RefinerError: weights that give NaN.
        """
        size = self._default_size((images.shape[-2], images.shape[-1]), Settings())
        shape = (1, size[0] // self.patch_size, size[1] // self.patch_size, -1)
        affinities = []
        for image in images:
            planes = self.features(image, size).reshape(shape).permute(0, 3, 1, 2)
            resized = F.interpolate(planes, size=grid, mode="bilinear", align_corners=False)
            affinities.append(feature_affinity(resized[0].flatten(1).T))
        affinity = torch.stack(affinities)
        self._check_finite(affinity)
        return affinity

    @torch.inference_mode()
    def features(self, image: Tensor, size: tuple[int, int], resize: str = "bilinear") -> Tensor:
        """Patch features of the last block after its norm.

        Args:
            image: [3, H, W] in [0, 1].
            size: to which it is resized; multiples of the patch.
            resize: how.

        Returns:
            [size / patch squared, D] float32.
        """
        pixels = resize_image(image.to(self.device), size, resize)
        mean, std = (torch.tensor(v, device=self.device)[:, None, None] for v in (_MEAN, _STD))
        pixels = ((pixels - mean) / std)[None].to(self.dtype)
        # Only ViT must be asked to fit its position table to the image.
        fit = {"interpolate_pos_encoding": True} if self.model.config.model_type == "vit" else {}
        hidden: Tensor = self.model(pixel_values=pixels, **fit).last_hidden_state
        return hidden[0, self._prefix :].float()

    def _default_size(self, image_size: tuple[int, int], settings: Settings) -> tuple[int, int]:
        rows, columns = (max(1, side // self.patch_size) for side in image_size)
        if settings.refine_max_patches is not None:
            rows, columns = limit_patches(rows, columns, settings.refine_max_patches)
        return rows * self.patch_size, columns * self.patch_size

    def _encode_batch(
        self, images: Sequence[Tensor], size: tuple[int, int], settings: Settings, seed: int
    ) -> list[Affinity]:
        grid = (size[0] // self.patch_size, size[1] // self.patch_size)
        resize = settings.refine_resize or "bilinear"
        return [Affinity(self.features(image, size, resize), grid) for image in images]


def _positions(table: Tensor, patch_size: int, embeddings: Tensor, height: int, width: int) -> Tensor:
    """DINO's position table for an input of ``height`` by ``width`` pixels, [1, 1 + patches, D].

    The last three arguments are those of the method of ``transformers`` that it replaces. Resized in float32.
    """
    resized = interpolate_dino_positions(table[0].float(), (height // patch_size, width // patch_size))
    return resized.to(table.dtype)[None]
