"""The confusion matrix that is filled image by image."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cliper.errors import ShapeError
from cliper.evaluation import ConfusionMatrix
from cliper.ops import confusion_matrix

PIXELS = st.lists(st.tuples(st.sampled_from([0, 1, 2, 255]), st.integers(0, 2)), min_size=1, max_size=20)


@given(st.lists(PIXELS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_matrix_is_the_sum_over_images_in_any_order(images: list[list[tuple[int, int]]], random: Any) -> None:
    target, prediction = (np.array([pixel[i] for image in images for pixel in image]) for i in (0, 1))
    expected = confusion_matrix(torch.from_numpy(target), torch.from_numpy(prediction), 3)
    random.shuffle(images)
    total = ConfusionMatrix(3)
    for image in images:
        one = ConfusionMatrix(3)
        one.update(np.array([t for t, _ in image]), np.array([p for _, p in image]))
        total.add_counts(one.to_counts())
    assert torch.equal(total.matrix, expected)


def test_metrics() -> None:
    matrix = ConfusionMatrix(4)
    assert math.isnan(matrix.miou)
    assert matrix.iou.isnan().all()
    matrix.update(torch.tensor([[0, 1, 2, 2], [1, 1, 0, 255]]), torch.tensor([[0, 1, 1, 2], [0, 1, 0, 0]]))
    assert matrix.iou[:3].tolist() == pytest.approx([2 / 3, 2 / 4, 1 / 2])
    assert matrix.iou[3].isnan()
    assert matrix.miou == pytest.approx(5 / 9)
    assert matrix.pixel_accuracy == pytest.approx(5 / 7)
    assert matrix.mean_accuracy == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    matrix = ConfusionMatrix(3, ignore=[0, 255])  # no background class
    matrix.update(np.array([0, 0, 1, 2, 255]), np.array([1, 2, 1, 0, 0]))
    assert matrix.matrix.tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert matrix.miou == 0.5


def test_arrays_of_every_integer_type_and_memory_layout() -> None:
    values = np.array([[0, 1, 2]], np.int64)
    kinds = [values.astype(t) for t in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">i2", ">u4")]
    read_only = values.copy()
    read_only.setflags(write=False)
    kinds += [read_only, values[:, ::-1][:, ::-1], values.T.copy().T, values.tolist(), torch.tensor(values)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in kinds:
            matrix = ConfusionMatrix(3)
            matrix.update(kind, kind)
            assert torch.equal(matrix.matrix, torch.eye(3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("target", "prediction", "words"),
    [
        (np.array([0.0]), np.array([0]), "target: expected integers, got float64"),
        (np.array([0]), np.array([True]), "prediction: expected integers, got bool"),
        (torch.tensor([0.5]), torch.tensor([0]), "target: expected integers, got torch.float32"),
        (np.array([0]), np.array([0, 1]), "of one shape"),
        (np.array([9]), np.array([0]), "target: expected labels from 0 to 1, got 9"),
        (np.array([2**64 - 1], np.uint64), np.array([0]), "target: expected labels from 0 to 1"),
        ([[0], [0, 1]], np.array([0]), "target: expected a tensor or an array of integers, got rows of different"),
    ],
)
def test_invalid_labels_change_nothing(target: Any, prediction: Any, words: str) -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([1]), np.array([1]))
    with pytest.raises(ShapeError, match=words):
        matrix.update(target, prediction)
    assert matrix.matrix.tolist() == [[0, 0], [0, 1]]
