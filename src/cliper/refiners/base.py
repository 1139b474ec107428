"""The base class of all refiners."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.devices import convert_out_of_memory
from cliper.errors import RefinerError, SettingsError, ShapeError
from cliper.ops.compensation import QueryKey
from cliper.settings import Settings

__all__ = ["Affinity", "Refiner", "limit_patches", "resize_image"]


@dataclass(frozen=True, eq=False)
class Affinity:
    """Relation of the parts of one image to each other, as a refiner's networks see them.

    It is stored as features or as queries and keys, which need far less memory than the affinity matrices that are
    computed of them.

    Args:
        values: patch features [S * S', D], or queries and keys of attention layers.
        grid: (S, S').
    """

    values: Tensor | tuple[QueryKey, ...]
    grid: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Size of the tensors in bytes."""
        if isinstance(self.values, Tensor):
            return self.values.nbytes
        return sum(layer.query.nbytes + layer.key.nbytes for layer in self.values)


class Refiner(ABC):
    """Sharpens coarse class maps by affinities between the parts of the image.

    This class checks inputs and results, forms batches and reports running out of memory. A subclass chooses the size
    of the networks' input (:meth:`_default_size`), runs its networks on a batch (:meth:`_encode_batch`) and applies
    what they gave to class maps (:meth:`_apply`).

    Args:
        name: for messages.
        device: of the networks.
        dtype: of the networks.
        patch_size: in pixels; the sides of the networks' input are multiples of it.
        batch_size: number of images that go through the networks together.
    """

    advice: ClassVar[str]
    """What to do when memory runs out."""

    concurrent: ClassVar[bool] = True
    """Whether images may be refined at once in threads; else one image at a time has all cores."""

    def __init__(
        self, *, name: str, device: torch.device, dtype: torch.dtype, patch_size: int, batch_size: int = 1
    ) -> None:
        self.name = name
        self.device = device
        self.dtype = dtype
        self.patch_size = patch_size
        self.batch_size = batch_size

    def prepare(self, settings: Settings) -> None:  # noqa: B027 - most refiners need nothing
        """Load what the settings need besides the refiner's own networks; else the first image does it.

        Raises:
            CheckpointError: weights are missing, damaged, of another kind, or cannot be downloaded.
        """

    def refine(
        self, images: Sequence[Tensor], maps: Sequence[Tensor], settings: Settings, seed: int = 0
    ) -> list[Tensor]:
        """Sharpen class maps. Inference only: no gradient is recorded.

        Args:
            images: each [3, H, W] in [0, 1], at its own original size.
            maps: class maps [C, h, w] before refinement, one stack for each image.
            settings: ``map_threshold`` and all settings that begin with ``refine_``.
            seed: of the noise, if there is any; the same for each image of the batch.

        Returns:
            For each image [C, S, S'] float32, on the device of its maps.

        Raises:
            ShapeError: images or maps of another shape or dtype, or with values that are not finite.
            SettingsError: settings that do not fit the refiner.
            RefinerError: no such layer, or weights that give NaN.
            ResourceError: out of memory.
        """
        if len(images) != len(maps):
            raise ShapeError(f"expected one stack of maps for each image, got {len(images)} images, {len(maps)} stacks")
        for image, stack in zip(images, maps, strict=True):
            _check_image(image)
            _check_maps(stack)
        refined: list[Tensor] = []
        for first in range(0, len(images), self.batch_size):
            batch = slice(first, first + self.batch_size)
            encoded = self.encode(images[batch], settings, seed)
            refined += [self.apply(one, stack, settings) for one, stack in zip(encoded, maps[batch], strict=True)]
        return refined

    def encode(self, images: Sequence[Tensor], settings: Settings, seed: int = 0) -> list[Affinity]:
        """Run the networks on images: all of :meth:`refine` that does not depend on class maps.

        Args:
            images: each [3, H, W] in [0, 1], at its own original size.
            settings: those that begin with ``refine_``.
            seed: as for :meth:`refine`.

        Returns:
            For each image its affinity, on the refiner's device.

        Raises:
            ShapeError, SettingsError, RefinerError, ResourceError: as :meth:`refine`.
        """
        encoded: list[Affinity] = []
        for image in images:
            _check_image(image)
        with torch.inference_mode():
            for first in range(0, len(images), self.batch_size):
                size = self.input_size((images[first].shape[-2], images[first].shape[-1]), settings)
                with convert_out_of_memory(f"refiner {self.name} at {size[0]}x{size[1]}", self.advice):
                    encoded += self._encode_batch(images[first : first + self.batch_size], size, settings, seed)
        return encoded

    def apply(self, affinity: Affinity, maps: Tensor, settings: Settings) -> Tensor:
        """Sharpen one image's class maps by its affinity; no network runs.

        Args:
            affinity: from :meth:`encode`.
            maps: [C, h, w].
            settings: ``map_threshold`` and those that begin with ``refine_``.

        Returns:
            [C, S, S'] float32, on the device of the maps.

        Raises:
            ShapeError, SettingsError, RefinerError, ResourceError: as :meth:`refine`.
        """
        _check_maps(maps)
        with torch.inference_mode(), convert_out_of_memory(f"refiner {self.name}", self.advice):
            refined = self._apply(affinity, maps, settings)
            self._check_finite(refined)
        # Cloned outside inference mode, a result can be changed in place and take part in a backward pass.
        return refined.to(maps.device).clone()

    @abstractmethod
    def _default_size(self, image_size: tuple[int, int], settings: Settings) -> tuple[int, int]:
        """Height and width of the networks' input where ``refine_size`` is None, for an image of that size."""

    @abstractmethod
    def _encode_batch(
        self, images: Sequence[Tensor], size: tuple[int, int], settings: Settings, seed: int
    ) -> list[Affinity]:
        """:meth:`encode` for a batch with input of one size."""

    @abstractmethod
    def _apply(self, affinity: Affinity, maps: Tensor, settings: Settings) -> Tensor:
        """:meth:`apply`, with a result on any device."""

    def input_size(self, image_size: tuple[int, int], settings: Settings) -> tuple[int, int]:
        """Height and width of the networks' input for an image of that size.

        Raises:
            SettingsError: a ``refine_size`` that is no multiple of the patch size.
        """
        given = settings.refine_size
        if given is None:
            return self._default_size(image_size, settings)
        height, width = (given, given) if isinstance(given, int) else given
        if height % self.patch_size or width % self.patch_size:
            near = [max(1, round(side / self.patch_size)) * self.patch_size for side in (height, width)]
            raise SettingsError(
                f"refine_size: refiner {self.name} needs multiples of {self.patch_size}, got {height}x{width}; "
                f"nearest is {near[0]}x{near[1]}"
            )
        return height, width

    def _check_finite(self, values: Tensor) -> None:
        """Check a result.

        Raises:
            RefinerError: it has NaN or infinity, because of broken weights or an overflow of float16.
        """
        if not bool(torch.isfinite(values).all()):
            hint = "the weights are broken; get the checkpoint again"
            if self.dtype == torch.float16:
                hint = f"float16 overflowed (try bfloat16 or float32), or {hint}"
            raise RefinerError(f"refiner {self.name}: expected finite maps, got NaN or infinity: {hint}")


def limit_patches(rows: float, columns: float, max_patches: int) -> tuple[int, int]:
    """A grid of whole patches, of the aspect ratio of ``rows`` and ``columns`` as nearly as the limit allows.

    Args:
        rows: patches from top to bottom, not rounded.
        columns: patches from left to right, not rounded.
        max_patches: of the grid, at least 1.

    Returns:
        Rows and columns, each at least 1, their product at most ``max_patches``.

    Example:
        >>> limit_patches(40, 20, 100), limit_patches(0.4, 7.4, 100), limit_patches(1, 5000, 100)
        ((14, 7), (1, 7), (1, 100))
    """
    shrink = min(1.0, math.sqrt(max_patches / (rows * columns)))
    height = min(max(1, round(rows * shrink)), max_patches)
    return height, min(max(1, round(columns * shrink)), max_patches // height)


def resize_image(image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """[3, H, W] in [0, 1] -> [3, *size] float32 in [0, 1].

    As the published code does it: no antialiasing (``"area"`` is the mode that averages).
    """
    align = False if mode in ("bilinear", "bicubic") else None
    resized = F.interpolate(image[None].float(), size=size, mode=mode, align_corners=align)[0]
    return resized.clamp(0, 1) if mode == "bicubic" else resized  # bicubic overshoots at edges


def _check_image(image: Tensor) -> None:
    if image.ndim != 3 or len(image) != 3 or not image.is_floating_point() or not image.numel():
        raise ShapeError(f"image: expected [3, H, W] of floats in [0, 1], got {list(image.shape)} {image.dtype}")
    if not bool(torch.isfinite(image).all()):
        raise ShapeError("image: expected finite numbers, got NaN or infinity")


def _check_maps(maps: Tensor) -> None:
    if maps.ndim != 3 or not maps.is_floating_point() or not maps.numel():
        raise ShapeError(f"maps: expected [C, h, w] of floats, got {list(maps.shape)} {maps.dtype}")
    if not bool(torch.isfinite(maps).all()):
        raise ShapeError("maps: expected finite numbers, got NaN or infinity")
