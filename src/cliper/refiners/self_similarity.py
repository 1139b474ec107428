"""``refiner="self"``: affinities from the CLIP image tower's own middle layers; nothing to download.

It is DINO's way (``docs/method.md``, section 3, last point) with the patches of CLIP itself, seen once more at a
finer grid. Layer, grid and inverse temperature were chosen by ``benchmarks/self_refiner.py`` on one half of its
images, with the bundled checkpoint.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.devices import memory_errors
from cliper.errors import SettingsError
from cliper.refiners.affinity import propagate
from cliper.refiners.base import BaseRefiner, limit_patches
from cliper.settings import Settings

__all__ = ["PatchEncoder", "SelfSimilarityRefiner"]

DEPTH = 11 / 12
"""The layer whose output is compared, as a share of the tower's layers."""
SIDE = 504
"""Short side of the image in pixels, about."""
MEAN_WEIGHT = 1.6
"""Weight of the mean similarity, which is subtracted from all similarities."""
INVERSE_TEMPERATURE = 3.0
"""Multiplies the remaining similarities before the softmax."""
MAX_LEVEL = 0.9
"""The subtracted level lies at most this share of the way from the mean similarity to 1.

1.6 times the mean is above 1 where patches are much alike (late layers, a plain wall, a blurred or tiny image), and
then no patch would keep anything. The limit matters where the mean is above 0.6, and changes nothing where it is not.
"""

# Where nothing else is asked for, long images are reduced to this many patches: attention grows with their square.
_MAX_PATCHES = 4096


class PatchEncoder(Protocol):
    """The part of the CLIP encoder that the refiner uses."""

    patch_size: int
    num_layers: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    device: torch.device
    dtype: torch.dtype

    def patch_features(self, pixels: Tensor, layer: int) -> Tensor:
        """[B, 3, H, W] -> [B, h * w, width], the patches after ``layer`` layers."""
        ...


class SelfSimilarityRefiner(BaseRefiner):
    """Class maps spread along the similarity of the CLIP encoder's own patches.

    Args:
        encoder: the CLIP encoder; it is shared, not copied.
        layer: how many layers the patches have gone through; None takes eleven twelfths of them.
        mean_weight, inverse_temperature: as in :func:`cliper.refiners.affinity.propagate`.

    Raises:
        SettingsError: a layer that the encoder does not have.
    """

    kind = "self"

    def __init__(
        self,
        encoder: PatchEncoder,
        *,
        layer: int | None = None,
        mean_weight: float = MEAN_WEIGHT,
        inverse_temperature: float = INVERSE_TEMPERATURE,
    ) -> None:
        super().__init__(name="self", device=encoder.device, dtype=encoder.dtype)
        self.layer = round(DEPTH * encoder.num_layers) if layer is None else layer
        if not 0 <= self.layer <= encoder.num_layers:
            raise SettingsError(f"layer: expected one from 0 to {encoder.num_layers}, got {layer}")
        self._encoder = encoder
        self._mean_weight, self._inverse_temperature = mean_weight, inverse_temperature

    def _details(self) -> dict[str, Any]:
        return {
            "layer": self.layer,
            "mean_weight": self._mean_weight,
            "inverse_temperature": self._inverse_temperature,
        }

    def _refine(self, images: Sequence[Tensor], maps: Sequence[Tensor], settings: Settings, seed: int) -> list[Tensor]:
        """There is no noise; of the settings only ``refine_size`` and ``refine_max_patches`` count."""
        results = []
        for image, stack in zip(images, maps, strict=True):
            size = self._size((image.shape[-2], image.shape[-1]), settings)
            with memory_errors(f"refiner self at {size[0]}x{size[1]}", "lower refine_size or refine_max_patches"):
                features = self.features(image, size)
                grid = (size[0] // self._encoder.patch_size, size[1] // self._encoder.patch_size)
                results.append(
                    propagate(
                        stack,
                        features,
                        grid,
                        mean_weight=self._mean_weight,
                        inverse_temperature=self._inverse_temperature,
                        max_level=MAX_LEVEL,
                    )
                )
        return results

    def features(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Patch features.

        Args:
            image: [3, H, W] in [0, 1].
            size: to which it is resized (bicubic, antialiased, as CLIP's own input is).

        Returns:
            [size / patch squared, width] float32.
        """
        encoder = self._encoder
        pixels = image[None].to(encoder.device, torch.float32)
        pixels = F.interpolate(pixels, size=size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        mean, std = (
            torch.tensor(v, device=encoder.device)[:, None, None] for v in (encoder.pixel_mean, encoder.pixel_std)
        )
        return encoder.patch_features((pixels - mean) / std, self.layer)[0].float()

    def _size(self, image: tuple[int, int], settings: Settings) -> tuple[int, int]:
        patch, given = self._encoder.patch_size, settings.refine_size
        if given is not None:
            size = (given, given) if isinstance(given, int) else given
            if any(side % patch for side in size):
                near = [max(1, round(side / patch)) * patch for side in size]
                raise SettingsError(
                    f"refine_size: refiner self wants multiples of the patch size {patch}, got {size[0]}x{size[1]}; "
                    f"nearest is {near[0]}x{near[1]}"
                )
            return size
        scale = SIDE / min(image) / patch
        max_patches = settings.refine_max_patches or _MAX_PATCHES
        rows, columns = limit_patches(image[0] * scale, image[1] * scale, max_patches)
        return rows * patch, columns * patch
