"""Segmentation metrics of one confusion matrix.

Source: ``docs/method.md``, section 5.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from cliper.errors import ShapeError

__all__ = ["class_iou", "confusion_matrix", "mean_accuracy", "mean_iou", "mean_iou_all", "pixel_accuracy"]


def confusion_matrix(target: Tensor, prediction: Tensor, num_classes: int, ignore: Iterable[int] = (255,)) -> Tensor:
    """Count pixels by ground truth (rows) and prediction (columns).

    Args:
        target: integers, any shape; every value is in [0, num_classes) or in ``ignore``.
        prediction: integers in [0, num_classes), the same shape.
        num_classes: rows and columns, background included.
        ignore: values of ``target`` whose pixels are left out.

    Returns:
        [num_classes, num_classes] int64 on the CPU.

    Raises:
        ShapeError: shapes that differ, values that are no integers or out of range.

    Example:
        >>> confusion_matrix(torch.tensor([0, 1, 255]), torch.tensor([0, 0, 1]), 2).tolist()
        [[1, 0], [1, 0]]
    """
    for name, values in (("target", target), ("prediction", prediction)):
        if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
            raise ShapeError(f"{name}: expected integers, got {values.dtype}")
    if target.shape != prediction.shape:
        raise ShapeError(
            f"expected target and prediction of one shape, got {list(target.shape)} and {list(prediction.shape)}"
        )
    target = target.long()  # in uint8 torch takes 300 for 44, and -1 for 255
    keep = torch.ones_like(target, dtype=torch.bool)
    for value in ignore:
        keep &= target != value
    rows = target[keep]
    columns = prediction.to(target.device)[keep].long()
    for name, values in (("target", rows), ("prediction", columns)):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
            wrong = int(values.max()) if int(values.max()) >= num_classes else int(values.min())
            raise ShapeError(f"{name}: expected labels from 0 to {num_classes - 1}, got {wrong}")
    counts = torch.bincount(rows * num_classes + columns, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).cpu()


def class_iou(matrix: Tensor) -> Tensor:
    """Intersection over union of each class, [K] float64; NaN for classes not in the ground truth."""
    hit, rows = _parts(matrix)
    union = rows + matrix.double().sum(0) - hit
    return torch.where(rows > 0, hit / union, torch.nan)


def mean_iou(matrix: Tensor) -> float:
    """Mean IoU over the classes that occur in the ground truth; NaN if there are none."""
    return float(class_iou(matrix).nanmean())


def mean_iou_all(matrix: Tensor, ignore: Iterable[int] = ()) -> float:
    """Mean IoU over the classes that occur in the ground truth or in the prediction; NaN if there are none.

    A class that is only predicted has IoU 0, so that names of things that are nowhere lower the mean.

    Args:
        matrix: [K, K], rows are ground truth.
        ignore: labels that are no class.

    Example:
        >>> mean_iou_all(torch.tensor([[3, 1], [0, 0]])), mean_iou(torch.tensor([[3, 1], [0, 0]]))
        (0.375, 0.75)
    """
    iou = class_iou(matrix)
    iou = torch.where(iou.isnan() & (matrix.sum(0) > 0), 0.0, iou)
    iou[[label for label in ignore if label < len(iou)]] = torch.nan
    return float(iou.nanmean())


def mean_accuracy(matrix: Tensor) -> float:
    """Mean over the classes that occur in the ground truth of the share of their pixels that is right."""
    hit, rows = _parts(matrix)
    return float(torch.where(rows > 0, hit / rows, torch.nan).nanmean())


def pixel_accuracy(matrix: Tensor) -> float:
    """Share of all counted pixels that is right; NaN if none was counted."""
    hit, rows = _parts(matrix)
    return float(hit.sum() / rows.sum())


def _parts(matrix: Tensor) -> tuple[Tensor, Tensor]:
    exact = matrix.double()
    return exact.diagonal(), exact.sum(1)
