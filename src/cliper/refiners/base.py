"""What the rest of the package knows of a refiner, and what all refiners share."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import RefinerError, ShapeError
from cliper.settings import Settings

__all__ = ["Refiner", "check_finite", "check_inputs", "limit_patches", "resize_picture", "without_gradients"]

P = ParamSpec("P")


class Refiner(Protocol):
    """Where affinities come from: something that sharpens coarse class maps by looking at the picture."""

    name: str

    def describe(self) -> dict[str, Any]:
        """What a report has to say of it, as plain values: name, source, revision, dtype, device."""
        ...

    def refine(
        self, pictures: Sequence[Tensor], maps: Sequence[Tensor], settings: Settings, seed: int = 0
    ) -> list[Tensor]:
        """Sharpen class maps.

        Args:
            pictures: each [3, H, W] in [0, 1], at its own original size.
            maps: for each picture its class maps [C, h, w] before refinement.
            settings: of these ``map_threshold`` and all that begin with ``refine_``.
            seed: of the noise, if there is any; the same for each picture, whatever batch it is in.

        Returns:
            For each picture [C, S, S'] float32, on the device of its maps.
        """
        ...


def without_gradients(refine: Callable[P, list[Tensor]]) -> Callable[P, list[Tensor]]:
    """:func:`torch.inference_mode` for a ``refine``, whose results are plain tensors nevertheless.

    A tensor of inference mode can neither be changed in place outside of it nor take part in a backward pass.
    """

    @functools.wraps(refine)
    def run(*args: P.args, **kwargs: P.kwargs) -> list[Tensor]:
        with torch.inference_mode():
            refined = refine(*args, **kwargs)
        return [one.clone() for one in refined]

    return run


def check_inputs(pictures: Sequence[Tensor], maps: Sequence[Tensor]) -> None:
    """Check what a refiner is given.

    Raises:
        ShapeError: not one stack of maps for each picture, or other shapes or values than expected.
    """
    if len(pictures) != len(maps):
        raise ShapeError(
            f"expected one stack of maps for each picture, got {len(pictures)} pictures, {len(maps)} stacks"
        )
    for picture, stack in zip(pictures, maps, strict=True):
        if picture.ndim != 3 or len(picture) != 3 or not picture.is_floating_point() or not picture.numel():
            raise ShapeError(
                f"picture: expected [3, H, W] of floats in [0, 1], got {list(picture.shape)} {picture.dtype}"
            )
        if stack.ndim != 3 or not stack.is_floating_point() or not stack.numel():
            raise ShapeError(f"maps: expected [C, h, w] of floats, got {list(stack.shape)} {stack.dtype}")
        for what, values in (("picture", picture), ("maps", stack)):
            if not bool(torch.isfinite(values).all()):
                raise ShapeError(f"{what}: expected finite numbers, got NaN or infinity")


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


def resize_picture(picture: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """[3, H, W] in [0, 1] -> [3, *size] float32 in [0, 1].

    As the published code does it: no antialiasing (``"area"`` is the mode that averages).
    """
    align = False if mode in ("bilinear", "bicubic") else None
    resized = F.interpolate(picture[None].float(), size=size, mode=mode, align_corners=align)[0]
    return resized.clamp(0, 1) if mode == "bicubic" else resized  # bicubic overshoots at edges


def check_finite(refined: Tensor, name: str, dtype: torch.dtype) -> None:
    """Check a result.

    Raises:
        RefinerError: it holds NaN or infinity, as broken weights or the small range of float16 give.
    """
    if not bool(torch.isfinite(refined).all()):
        hint = "the weights are broken; get the checkpoint again"
        if dtype == torch.float16:
            hint = f"float16 overflowed (try bfloat16 or float32), or {hint}"
        raise RefinerError(f"refiner {name}: expected finite maps, got NaN or infinity: {hint}")
