"""The refiner protocol and what all refiners share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import RefinerError, ShapeError
from cliper.settings import Settings

__all__ = ["BaseRefiner", "Refiner", "limit_patches", "resize_image"]


class Refiner(Protocol):
    """Sharpens coarse class maps by affinities between the parts of the image."""

    name: str

    def describe(self) -> dict[str, Any]:
        """Plain values for a report: name, kind, source, revision, dtype, device."""
        ...

    def refine(
        self, images: Sequence[Tensor], maps: Sequence[Tensor], settings: Settings, seed: int = 0
    ) -> list[Tensor]:
        """Sharpen class maps.

        Args:
            images: each [3, H, W] in [0, 1], at its own original size.
            maps: class maps [C, h, w] before refinement, one stack for each image.
            settings: ``map_threshold`` and all settings that begin with ``refine_``.
            seed: of the noise, if there is any; the same for each image of the batch.

        Returns:
            For each image [C, S, S'] float32, on the device of its maps.
        """
        ...


class BaseRefiner(ABC):
    """Checks of inputs and results, inference mode and the description, for a subclass that implements ``_refine``.

    Args:
        name: for messages and reports.
        device: of the networks.
        dtype: of the networks.
        source, revision: of the checkpoint; None for a refiner that has none.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        *,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        source: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.name = name
        self.device = device
        self.dtype = dtype
        self._source, self._revision = source, revision

    def describe(self) -> dict[str, Any]:
        """See :meth:`Refiner.describe`."""
        origin = {} if self._source is None else {"source": self._source, "revision": self._revision}
        where = {"device": str(self.device), "dtype": str(self.dtype).removeprefix("torch.")}
        return {"name": self.name, "kind": self.kind, **origin, **self._details(), **where}

    def refine(
        self, images: Sequence[Tensor], maps: Sequence[Tensor], settings: Settings, seed: int = 0
    ) -> list[Tensor]:
        """See :meth:`Refiner.refine`.

        Raises:
            ShapeError: images or maps of another shape or dtype, or with values that are not finite.
            SettingsError: settings that do not fit the refiner.
            RefinerError: weights that give NaN.
            ResourceError: out of memory.
        """
        _check_inputs(images, maps)
        with torch.inference_mode():
            refined = self._refine(images, maps, settings, seed)
            for one in refined:
                self._check_finite(one)
        # Cloned outside inference mode, a result can be changed in place and take part in a backward pass.
        return [one.to(stack.device).clone() for one, stack in zip(refined, maps, strict=True)]

    @abstractmethod
    def _refine(self, images: Sequence[Tensor], maps: Sequence[Tensor], settings: Settings, seed: int) -> list[Tensor]:
        """:meth:`refine` on checked inputs, in inference mode; results on any device."""

    def _details(self) -> dict[str, Any]:
        """What :meth:`describe` has to say beyond what all refiners have."""
        return {}

    def _check_finite(self, values: Tensor) -> None:
        """Check a result.

        Raises:
            RefinerError: it holds NaN or infinity, as broken weights or the small range of float16 give.
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


def _check_inputs(images: Sequence[Tensor], maps: Sequence[Tensor]) -> None:
    """Check what a refiner is given.

    Raises:
        ShapeError: not one stack of maps for each image, or other shapes or values than expected.
    """
    if len(images) != len(maps):
        raise ShapeError(f"expected one stack of maps for each image, got {len(images)} images, {len(maps)} stacks")
    for image, stack in zip(images, maps, strict=True):
        if image.ndim != 3 or len(image) != 3 or not image.is_floating_point() or not image.numel():
            raise ShapeError(f"image: expected [3, H, W] of floats in [0, 1], got {list(image.shape)} {image.dtype}")
        if stack.ndim != 3 or not stack.is_floating_point() or not stack.numel():
            raise ShapeError(f"maps: expected [C, h, w] of floats, got {list(stack.shape)} {stack.dtype}")
        for what, values in (("image", image), ("maps", stack)):
            if not bool(torch.isfinite(values).all()):
                raise ShapeError(f"{what}: expected finite numbers, got NaN or infinity")
