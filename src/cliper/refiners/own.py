"""``refiner="self"``: affinities from the CLIP image tower's own middle layers; nothing to download.

It is DINO's way (``docs/method.md``, section 3, last point) with the patches of CLIP itself, seen once more at a
finer grid. Which layer, grid and sharpness were chosen by ``benchmarks/self_refiner.py`` on one half of its
pictures, with the bundled checkpoint.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.devices import convert_out_of_memory
from cliper.errors import SettingsError
from cliper.refiners.affinity import spread_by_affinity
from cliper.refiners.base import check_finite, check_inputs, limit_patches, without_gradients
from cliper.settings import Settings

__all__ = ["OwnRefiner", "PatchEncoder"]

DEPTH = 11 / 12
"""The layer whose output is compared, as a share of the tower's layers."""
SIDE = 504
"""Short side of the picture in pixels, about."""
SUBTRACTED = 1.6
"""How many times the mean similarity is taken off."""
SHARPNESS = 3.0
"""What is left is multiplied by this before the softmax."""
HIGHEST = 0.9
"""What is subtracted goes at most so many parts of the way from the mean similarity to 1.

1.6 times the mean is above 1 where patches are much alike (late layers, a plain wall, a blurred or tiny picture), and
then no patch would keep anything. The limit matters where the mean is above 0.6, and changes nothing where it is not.
"""

# Where nothing else is asked for, long images are reduced to this many patches: attention grows with their square.
_MAX_PATCHES = 4096


class PatchEncoder(Protocol):
    """What is wanted of the CLIP encoder."""

    patch_size: int
    num_layers: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    device: torch.device
    dtype: torch.dtype

    def patch_features(self, pixels: Tensor, layer: int) -> Tensor:
        """[B, 3, H, W] -> [B, h * w, width], the patches after ``layer`` layers."""
        ...


class OwnRefiner:
    """Class maps spread along the similarity of the CLIP encoder's own patches.

    Args:
        encoder: the CLIP encoder; it is shared, not copied.
        layer: how many layers the patches have gone through; None takes eleven twelfths of them.
        subtracted, sharpness: as in :func:`cliper.refiners.affinity.spread_by_affinity`.

    Raises:
        SettingsError: a layer that the encoder does not have.
    """

    name = "self"

    def __init__(
        self,
        encoder: PatchEncoder,
        *,
        layer: int | None = None,
        subtracted: float = SUBTRACTED,
        sharpness: float = SHARPNESS,
    ) -> None:
        self.layer = round(DEPTH * encoder.num_layers) if layer is None else layer
        if not 0 <= self.layer <= encoder.num_layers:
            raise SettingsError(f"layer: expected one from 0 to {encoder.num_layers}, got {layer}")
        self._encoder = encoder
        self._subtracted, self._sharpness = subtracted, sharpness

    def describe(self) -> dict[str, Any]:
        """See :meth:`Refiner.describe`."""
        return {
            "name": self.name,
            "kind": "self",
            "layer": self.layer,
            "subtracted": self._subtracted,
            "sharpness": self._sharpness,
            "device": str(self._encoder.device),
            "dtype": str(self._encoder.dtype).removeprefix("torch."),
        }

    @without_gradients
    def refine(
        self, pictures: Sequence[Tensor], maps: Sequence[Tensor], settings: Settings, seed: int = 0
    ) -> list[Tensor]:
        """See :meth:`Refiner.refine`. There is no noise, and of the settings only ``refine_size`` and
        ``refine_max_patches`` count.

        Raises:
            SettingsError: a ``refine_size`` that is no multiple of the patch size.
            ShapeError: pictures or maps of another form.
            RefinerError: weights that give NaN.
            ResourceError: memory ran out.
        """
        check_inputs(pictures, maps)
        results = []
        for picture, stack in zip(pictures, maps, strict=True):
            size = self._size((picture.shape[-2], picture.shape[-1]), settings)
            with convert_out_of_memory(
                f"refiner self at {size[0]}x{size[1]}", "lower refine_size or refine_max_patches"
            ):
                features = self.features(picture, size)
                grid = (size[0] // self._encoder.patch_size, size[1] // self._encoder.patch_size)
                refined = spread_by_affinity(
                    stack, features, grid, subtracted=self._subtracted, sharpness=self._sharpness, highest=HIGHEST
                )
            check_finite(refined, self.name, self._encoder.dtype)
            results.append(refined.to(stack.device))
        return results

    def features(self, picture: Tensor, size: tuple[int, int]) -> Tensor:
        """Patch features.

        Args:
            picture: [3, H, W] in [0, 1].
            size: to which it is resized (bicubic, antialiased, as CLIP's own input is).

        Returns:
            [size / patch squared, width] float32.
        """
        encoder = self._encoder
        pixels = picture[None].to(encoder.device, torch.float32)
        pixels = F.interpolate(pixels, size=size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        mean, std = (
            torch.tensor(v, device=encoder.device)[:, None, None] for v in (encoder.pixel_mean, encoder.pixel_std)
        )
        return encoder.patch_features((pixels - mean) / std, self.layer)[0].float()

    def _size(self, picture: tuple[int, int], settings: Settings) -> tuple[int, int]:
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
        scale = SIDE / min(picture) / patch
        max_patches = settings.refine_max_patches or _MAX_PATCHES
        rows, columns = limit_patches(picture[0] * scale, picture[1] * scale, max_patches)
        return rows * patch, columns * patch
