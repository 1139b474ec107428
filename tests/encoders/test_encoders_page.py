"""docs/encoders.md: its encoder fulfils the protocol and segments by colour."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cliper
from cliper.encoders.base import Encoder

PAGE = Path(__file__).parents[2] / "docs" / "encoders.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The names that the page defines."""
    namespace: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), namespace)
    return namespace


def test_page_is_short() -> None:
    assert len(TEXT.splitlines()) <= 100


def test_encoder_of_the_page_has_all_that_the_protocol_asks_for(page: dict[str, Any]) -> None:
    encoder = page["ColourEncoder"]()
    methods = [name for name in vars(Encoder) if not name.startswith("_")]
    assert [name for name in [*Encoder.__annotations__, *methods] if not hasattr(encoder, name)] == []
    assert len(Encoder.__annotations__) == 7
    assert len(methods) == 4


@pytest.mark.parametrize("refiner", [None, "self"])
def test_encoder_of_the_page_segments_by_colour(page: dict[str, Any], refiner: str | None) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :48], image[:, 48:] = (0, 128, 0), (135, 206, 235)
    segmenter: cliper.Segmenter = page["segmenter"].with_refiner(refiner)
    settings = segmenter.settings.replace(size=64, flip=True, class_top=2, refine_size=64)
    result = segmenter.with_settings(settings)(image, ["green", "brown", "skyblue"], background="none")
    assert [result.classes[label - 1] for label in result.labels[32, [8, 88]]] == ["green", "skyblue"]
