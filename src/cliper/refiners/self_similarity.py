"""``refiner="self"``: affinities from middle layers of the CLIP image encoder in use; nothing to download.

Class maps are propagated as by DINO (``docs/method.md``, section 3, last point), along the similarity of CLIP's own
patches in a finer grid. Layer, grid and inverse temperature were chosen by ``benchmarks/self_refiner.py`` on one half
of its images, with the bundled checkpoint.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.encoders.base import Encoder
from cliper.errors import SettingsError
from cliper.refiners.base import Affinity, limit_patches
from cliper.refiners.feature_refiner import FeatureRefiner
from cliper.settings import Settings

__all__ = ["SelfSimilarityRefiner"]

DEPTH = 11 / 12
"""The layer whose output is compared, as a share of the encoder's layers."""
SIDE = 504
"""Short side of the image in pixels, about."""
MEAN_WEIGHT = 1.6
"""Weight of the mean similarity, which is subtracted from all similarities."""
INVERSE_TEMPERATURE = 3.0
"""Multiplies the remaining similarities before the softmax."""
MAX_LEVEL = 0.9
"""The subtracted level lies at most this share of the way from the mean similarity to 1.

1.6 times the mean is above 1 where patches are much alike (late layers, a uniform wall, a blurred or tiny image), and
then no patch would keep anything. The limit matters where the mean is above 0.6, and changes nothing where it is not.
"""

MAX_PATCHES = 4096
"""Without ``refine_max_patches``, long images are reduced to this many: attention grows with their square."""


class SelfSimilarityRefiner(FeatureRefiner):
    """Propagates class maps along the similarity of the CLIP encoder's own patches.

    Of the settings only ``refine_size``, ``refine_max_patches``, ``refine_propagation``, ``refine_neighbors`` and
    ``refine_alpha`` are used; there is no noise.

    Args:
        encoder: the CLIP encoder; it is shared, not copied.
        layer: number of layers that the patches have gone through; None takes eleven twelfths of them.

    Raises:
        SettingsError: a layer that the encoder does not have.
    """

    advice = "lower refine_size or refine_max_patches"
    product_options: ClassVar[Mapping[str, float]] = {
        "mean_weight": MEAN_WEIGHT,
        "inverse_temperature": INVERSE_TEMPERATURE,
        "max_level": MAX_LEVEL,
    }

    def __init__(self, encoder: Encoder, *, layer: int | None = None) -> None:
        super().__init__(name="self", device=encoder.device, dtype=encoder.dtype, patch_size=encoder.patch_size)
        self.layer = round(DEPTH * encoder.num_layers) if layer is None else layer
        if not 0 <= self.layer <= encoder.num_layers:
            raise SettingsError(f"layer: expected one from 0 to {encoder.num_layers}, got {layer}")
        self._encoder = encoder

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

    def _default_size(self, image_size: tuple[int, int], settings: Settings) -> tuple[int, int]:
        scale = SIDE / min(image_size) / self.patch_size
        max_patches = settings.refine_max_patches or MAX_PATCHES
        rows, columns = limit_patches(image_size[0] * scale, image_size[1] * scale, max_patches)
        return rows * self.patch_size, columns * self.patch_size

    def _encode_batch(
        self, images: Sequence[Tensor], size: tuple[int, int], settings: Settings, seed: int
    ) -> list[Affinity]:
        grid = (size[0] // self.patch_size, size[1] // self.patch_size)
        return [Affinity(self.features(image, size), grid) for image in images]
