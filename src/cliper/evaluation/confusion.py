"""A confusion matrix that is filled image by image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cliper.errors import ShapeError

if TYPE_CHECKING:
    import torch

__all__ = ["ConfusionMatrix"]


class ConfusionMatrix:
    """Accumulates pixels by ground truth (rows) and prediction (columns). ``docs/method.md``, section 5.

    Args:
        num_classes: how many labels there are, background (0) included.
        ignore: values of the ground truth whose pixels are left out.

    Raises:
        ShapeError: ``num_classes`` below 1.

    Example:
        >>> import numpy as np
        >>> matrix = ConfusionMatrix(2)
        >>> matrix.update(np.array([[0, 1, 255]]), np.array([[0, 1, 1]]))
        >>> matrix.miou
        1.0
    """

    def __init__(self, num_classes: int, ignore: Iterable[int] = (255,)) -> None:
        import torch

        if num_classes < 1:
            raise ShapeError(f"num_classes: expected at least 1, got {num_classes}")
        self.num_classes = num_classes
        self.ignore = tuple(ignore)
        self._matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    @property
    def matrix(self) -> torch.Tensor:
        """[K, K] int64, a copy; rows are ground truth."""
        return self._matrix.clone()

    def update(self, target: Any, prediction: Any) -> None:
        """Count one image, or several. Both are tensors or arrays of integers of one shape.

        Raises:
            ShapeError: shapes that differ, values that are no integers or out of range; nothing is counted.
        """
        from cliper.ops.metrics import confusion_matrix

        self._matrix += confusion_matrix(
            _tensor("target", target), _tensor("prediction", prediction), self.num_classes, self.ignore
        )

    def add_counts(self, counts: Sequence[int]) -> None:
        """Add a matrix in the form of :meth:`to_counts`."""
        import torch

        rows, columns, values = torch.tensor(counts, dtype=torch.int64).reshape(-1, 3).unbind(1)
        self._matrix.index_put_((rows, columns), values, accumulate=True)

    def to_counts(self) -> list[int]:
        """The matrix without its zeros: row, column, count, row, column, count, ..."""
        import torch

        places = self._matrix.nonzero()
        counts: list[int] = torch.cat([places, self._matrix[tuple(places.T)][:, None]], 1).flatten().tolist()
        return counts

    @property
    def iou(self) -> torch.Tensor:
        """[K] float64; NaN for classes that do not occur in the ground truth."""
        from cliper.ops.metrics import class_iou

        return class_iou(self._matrix)

    @property
    def miou(self) -> float:
        """Mean of :attr:`iou` over the classes that occur in the ground truth, in [0, 1]."""
        from cliper.ops.metrics import mean_iou

        return mean_iou(self._matrix)

    @property
    def pixel_accuracy(self) -> float:
        """Share of the counted pixels that is right, in [0, 1]."""
        from cliper.ops.metrics import pixel_accuracy

        return pixel_accuracy(self._matrix)

    @property
    def mean_accuracy(self) -> float:
        """Mean share of right pixels over the classes of the ground truth, in [0, 1]."""
        from cliper.ops.metrics import mean_accuracy

        return mean_accuracy(self._matrix)


def _tensor(name: str, values: Any) -> torch.Tensor:
    """Arrays of any integer type, byte order and strides, read-only ones too, as torch takes few of these."""
    import numpy as np
    import torch

    if isinstance(values, torch.Tensor):
        return values
    try:
        array = np.asarray(values)
    except ValueError:
        raise ShapeError(f"{name}: expected a tensor or an array of integers, got rows of different lengths") from None
    if array.dtype.kind not in "iu":
        raise ShapeError(f"{name}: expected integers, got {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))
