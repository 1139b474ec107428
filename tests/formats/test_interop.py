"""Results as objects of other libraries."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from format_helpers import CLASSES, labels_of, result_of

from cliper.errors import MissingExtraError


def test_to_transformers_lists_the_classes_found() -> None:
    result = result_of(np.where(labels_of(3) == 2, 0, labels_of(3)))
    found = result.to_transformers()
    assert [(one["label"], round(one["score"], 6)) for one in found] == [(CLASSES[0], 0.5), (CLASSES[2], 0.9)]
    for one, label in zip(found, (1, 3), strict=True):
        assert one["mask"].mode == "L"
        np.testing.assert_array_equal(np.asarray(one["mask"]), np.where(result.labels == label, 255, 0))
    assert result_of(np.zeros((2, 2))).to_transformers() == []


# Its import warns that OpenCV is missing, and urllib3 tests whether sockets support IPv6.
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_to_supervision_has_masks_and_boxes() -> None:
    labels = np.zeros((20, 30), int)
    labels[5:10, 4:9] = 3
    labels[12, 20:25] = 1
    found = result_of(labels).to_supervision()
    assert found.class_id.tolist() == [0, 2]
    assert found.data["class_name"].tolist() == [CLASSES[0], CLASSES[2]]
    assert found.confidence.tolist() == pytest.approx([0.5, 0.9])
    assert found.xyxy.tolist() == [[20, 12, 24, 12], [4, 5, 8, 9]]
    np.testing.assert_array_equal(found.mask, [labels == 1, labels == 3])
    assert found.area.tolist() == [5, 25]
    assert len(result_of(np.zeros((2, 2))).to_supervision()) == 0


def test_missing_supervision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cliper\[supervision\]'"):
        result_of(np.ones((2, 2))).to_supervision()
