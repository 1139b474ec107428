"""The confusion matrix and what is read from it, beside plain counting in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cliper.errors import ShapeError
from cliper.ops import class_iou, confusion_matrix, mean_accuracy, mean_iou, mean_iou_all, pixel_accuracy
from golden import load_golden


def test_golden_metrics() -> None:
    golden = load_golden("refine")
    matrix = confusion_matrix(golden["target"], golden["labels.0"].long(), 6)
    assert matrix.dtype == torch.int64
    assert int(matrix.sum()) == int((golden["target"] != 255).sum())
    got = torch.tensor([mean_iou(matrix), pixel_accuracy(matrix), mean_accuracy(matrix)], dtype=torch.float64)
    # The published implementation adds 1e-5 to its denominators, which are of some 3,000 pixels.
    assert golden["miou"].dtype == torch.float64
    torch.testing.assert_close(got, golden["miou"], atol=2e-9, rtol=0)


def counted(target: list[int], prediction: list[int], classes: int, ignore: set[int]) -> np.ndarray:
    matrix = np.zeros((classes, classes), dtype=object)
    for t, p in zip(target, prediction, strict=True):
        if t not in ignore:
            matrix[t, p] += 1
    return matrix


def plain_metrics(matrix: np.ndarray) -> tuple[list[float], float, float, float]:
    """IoU by class, mean IoU, pixel accuracy, mean accuracy; a class that is not in the ground truth has none."""
    classes = range(len(matrix))
    hits, rows, columns = [matrix[c, c] for c in classes], matrix.sum(1), matrix.sum(0)
    present = [c for c in classes if rows[c]]
    iou = [hits[c] / (rows[c] + columns[c] - hits[c]) if rows[c] else math.nan for c in classes]
    if not present:
        return iou, math.nan, math.nan, math.nan
    mean = sum(iou[c] for c in present) / len(present)
    accuracy = sum(hits[c] / rows[c] for c in present) / len(present)
    return iou, mean, sum(hits) / rows.sum(), accuracy


@st.composite
def label_maps(draw: st.DrawFn) -> tuple[list[int], list[int], int, set[int]]:
    classes = draw(st.integers(1, 12))
    ignore = draw(st.sets(st.sampled_from([0, 1, 200, 254, 255]), max_size=3))
    outside = sorted(value for value in ignore if value >= classes)
    labels = st.integers(0, classes - 1)
    targets = labels | st.sampled_from(outside) if outside else labels
    pixels = draw(st.lists(st.tuples(targets, labels), max_size=60))
    return [t for t, _ in pixels], [p for _, p in pixels], classes, ignore


@given(label_maps(), st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64]))
def test_matrix_equals_plain_counting(data: tuple[list[int], list[int], int, set[int]], dtype: torch.dtype) -> None:
    target, prediction, classes, ignore = data
    if dtype != torch.uint8 or all(value < 256 for value in target):
        matrix = confusion_matrix(torch.tensor(target).to(dtype), torch.tensor(prediction).to(dtype), classes, ignore)
    expected = counted(target, prediction, classes, ignore)
    assert matrix.tolist() == expected.tolist()
    iou, *numbers = plain_metrics(expected)
    got = [mean_iou(matrix), pixel_accuracy(matrix), mean_accuracy(matrix)]
    # A handful of divisions and additions in float64.
    np.testing.assert_allclose(got, numbers, atol=1e-12, rtol=0, equal_nan=True)
    np.testing.assert_allclose(class_iou(matrix).numpy(), iou, atol=1e-12, rtol=0, equal_nan=True)


def test_absent_classes_are_not_in_the_mean() -> None:
    # 2 is neither there nor predicted, 3 is only predicted: it lowers the IoU of 0, and has none itself.
    matrix = confusion_matrix(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 3, 1, 1]), 4)
    assert class_iou(matrix)[:2].tolist() == [0.5, 1.0]
    assert class_iou(matrix)[2:].isnan().all()
    assert mean_iou(matrix) == 0.75
    assert mean_accuracy(matrix) == 0.75
    assert pixel_accuracy(matrix) == 0.75


def test_mean_over_all_classes_counts_those_only_predicted_as_zero() -> None:
    matrix = confusion_matrix(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 3, 1, 1]), 5)
    assert mean_iou_all(matrix) == (0.5 + 1.0 + 0) / 3  # 2 and 4 are in neither
    assert mean_iou_all(matrix, ignore=(3, 255)) == 0.75
    assert math.isnan(mean_iou_all(torch.zeros(3, 3, dtype=torch.int64)))


def test_no_pixels_give_nan() -> None:
    empty = torch.empty(0, 5, dtype=torch.int64)
    matrix = confusion_matrix(empty, empty, 3)
    assert matrix.tolist() == [[0] * 3] * 3
    assert all(math.isnan(f(matrix)) for f in (mean_iou, mean_accuracy, pixel_accuracy))


def test_counts_larger_than_float32_precision() -> None:
    matrix = torch.diag(torch.tensor([2**40 + 1, 2**40 - 1]))
    matrix[0, 1] = 1
    assert class_iou(matrix)[0].item() == (2**40 + 1) / (2**40 + 2)
    assert pixel_accuracy(matrix) == 2**41 / (2**41 + 1)


def test_ignored_values_outside_the_range_of_uint8() -> None:
    bytes_ = torch.tensor([44, 255], dtype=torch.uint8)
    prediction = torch.tensor([0, 1])
    assert int(confusion_matrix(bytes_, prediction, 256, ignore=(300, -1)).sum()) == 2
    assert int(confusion_matrix(bytes_, prediction, 256, ignore=()).sum()) == 2
    assert int(confusion_matrix(bytes_, prediction, 256, ignore=(255, 44)).sum()) == 0


@pytest.mark.parametrize(
    ("target", "prediction", "words"),
    [
        ([0, 3], [0, 0], "target: expected labels from 0 to 2, got 3"),
        ([0, -1], [0, 0], "target: expected labels from 0 to 2, got -1"),
        ([0, 0], [0, 3], "prediction: expected labels from 0 to 2, got 3"),
        ([0, 0], [-2, 0], "prediction: expected labels from 0 to 2, got -2"),
        ([0, 0], [0], r"of one shape, got \[2\] and \[1\]"),
        ([[0, 0]], [0, 0], r"of one shape, got \[1, 2\] and \[2\]"),
        ([0.0], [0], "target: expected integers, got torch.float32"),
        ([0], [True], "prediction: expected integers, got torch.bool"),
        ([1j], [0], "target: expected integers"),
    ],
)
def test_bad_labels(target: list, prediction: list, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        confusion_matrix(torch.tensor(target), torch.tensor(prediction), 3)


def test_arguments_are_not_changed() -> None:
    target, prediction = torch.tensor([0, 255, 1]), torch.tensor([1, 1, 1])
    matrix = confusion_matrix(target, prediction, 2)
    before = matrix.clone()
    class_iou(matrix), mean_iou(matrix), mean_accuracy(matrix), pixel_accuracy(matrix)
    assert target.tolist() == [0, 255, 1]
    assert prediction.tolist() == [1, 1, 1]
    assert torch.equal(matrix, before)
