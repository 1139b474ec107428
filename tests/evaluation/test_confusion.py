"""The confusion matrix that is filled picture by picture."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cliper
from cliper.errors import ShapeError
from cliper.evaluation import ConfusionMatrix
from cliper.ops import confusion_matrix

pixels = st.lists(st.tuples(st.sampled_from([0, 1, 2, 255]), st.integers(0, 2)), min_size=1, max_size=20)


def filled(*pictures: list[tuple[int, int]]) -> ConfusionMatrix:
    matrix = ConfusionMatrix(3)
    for picture in pictures:
        matrix.update(np.array([t for t, _ in picture]), np.array([p for _, p in picture]))
    return matrix


@given(st.lists(pixels, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_in_any_order_and_on_any_number_of_workers_it_is_the_sum(
    pictures: list[list[tuple[int, int]]], random: Any
) -> None:
    expected = filled([pixel for picture in pictures for pixel in picture])
    assert torch.equal(filled(*pictures).matrix, expected.matrix)
    random.shuffle(pictures)
    workers = [filled(picture) for picture in pictures]
    random.shuffle(workers)
    total = ConfusionMatrix(3)
    for worker in workers:
        before = worker.matrix
        total.merge(worker)
        assert torch.equal(worker.matrix, before)
    assert torch.equal(total.matrix, expected.matrix)
    assert torch.equal(total.iou, expected.iou) or total.iou.isnan().equal(expected.iou.isnan())
    assert total.miou == expected.miou or math.isnan(total.miou)


def test_it_says_what_the_functions_say() -> None:
    target = torch.tensor([[0, 1, 2, 2], [1, 1, 0, 255]])
    prediction = torch.tensor([[0, 1, 1, 2], [0, 1, 0, 0]])
    matrix = ConfusionMatrix(4)
    matrix.update(target, prediction)
    assert torch.equal(matrix.matrix, confusion_matrix(target, prediction, 4))
    assert matrix.iou[:3].tolist() == pytest.approx([2 / 3, 2 / 4, 1 / 2])
    assert matrix.iou[3].isnan()
    assert matrix.miou == pytest.approx(5 / 9)
    assert matrix.pixel_accuracy == pytest.approx(5 / 7)
    assert matrix.mean_accuracy == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)


def test_no_background_class_is_ignoring_it() -> None:
    matrix = ConfusionMatrix(3, ignore=[0, 255])
    matrix.update(np.array([0, 0, 1, 2, 255]), np.array([1, 2, 1, 0, 0]))
    assert matrix.matrix.tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert matrix.miou == 0.5


def test_nothing_counted_yet() -> None:
    matrix = ConfusionMatrix(2)
    assert math.isnan(matrix.miou)
    assert math.isnan(matrix.pixel_accuracy)
    assert matrix.iou.isnan().all()
    assert cliper.evaluation.ConfusionMatrix is ConfusionMatrix


def test_the_matrix_is_a_copy() -> None:
    matrix = filled([(0, 0)])
    matrix.matrix.zero_()
    assert int(matrix.matrix.sum()) == 1


def test_arrays_of_every_kind_and_without_a_word() -> None:
    values = np.array([[0, 1, 2]], np.int64)
    kinds = [values.astype(t) for t in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">i2", ">u4")]
    read_only = values.copy()
    read_only.setflags(write=False)
    kinds += [read_only, values[:, ::-1][:, ::-1], values.T.copy().T, values.tolist(), torch.tensor(values)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for target in kinds:
            for prediction in kinds:
                matrix = ConfusionMatrix(3)
                matrix.update(target, prediction)
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
        (None, np.array([0]), "target: expected integers, got object"),
        ("0", np.array([0]), "target: expected integers"),
        ([[0], [0, 1]], np.array([0]), "target: expected a tensor or an array of integers, got rows of different"),
    ],
)
def test_what_cannot_be_counted_changes_nothing(target: Any, prediction: Any, words: str) -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([1]), np.array([1]))
    with pytest.raises(ShapeError, match=words):
        matrix.update(target, prediction)
    assert matrix.matrix.tolist() == [[0, 0], [0, 1]]


def test_matrices_that_do_not_belong_together() -> None:
    with pytest.raises(ShapeError, match=r"expected a matrix of 3 classes ignoring \[255\], got 4 ignoring \[255\]"):
        ConfusionMatrix(3).merge(ConfusionMatrix(4))
    with pytest.raises(ShapeError, match=r"got 3 ignoring \[0, 255\]"):
        ConfusionMatrix(3).merge(ConfusionMatrix(3, ignore=(255, 0)))
    ConfusionMatrix(3, ignore=(0, 255)).merge(ConfusionMatrix(3, ignore=(255, 0, 0)))
    with pytest.raises(ShapeError, match="num_classes: expected at least 1, got 0"):
        ConfusionMatrix(0)
