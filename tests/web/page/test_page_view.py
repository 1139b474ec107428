"""What the browser gets holds the labels and the maps, as they are."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cliper.result import Segmentation
from cliper.settings import Settings
from cliper.web.page.view import SHEET, SIDE, colours, labels_view, scene_view, shown, tiled


def opened(uri: str) -> Image.Image:
    kind, _, data = uri.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def laid_out(sheets: list[np.ndarray], heat: dict[str, Any], count: int) -> np.ndarray:
    """The maps again, one by one, as the viewer finds them."""
    columns, rows, width, height = (heat[key] for key in ("columns", "rows", "width", "height"))
    maps = []
    for index in range(count):
        sheet, place = divmod(index, columns * rows)
        top, left = place // columns * height, place % columns * width
        maps.append(sheets[sheet][top : top + height, left : left + width])
    return np.stack(maps)


@pytest.fixture(params=[(96, 64), (2000, 1500)], ids=["small", "large"])
def result(request: pytest.FixtureRequest, make_picture: Any) -> Segmentation:
    width, height = request.param
    random = np.random.default_rng(3)
    maps = random.random((3, 6, 8)).astype(np.float32)
    refined = random.random((3, 12, 16)).astype(np.float32) * np.float32([[[1.5]], [[0.5]], [[0]]])
    first = Segmentation(
        image=make_picture(width, height),
        classes=("dog", "<b>", "nothing"),
        labels=np.zeros((height, width), np.int32),
        confidence=np.float32([1.2, 0.7, 0.5]),
        maps=maps,
        refined=refined,
        settings=Settings(score_threshold=0.1, background_threshold=0.3),
        model="none",
        refiner="self",
    )
    return shown(first.relabel())


def test_what_is_shown_is_small_and_comes_from_the_same_maps(result: Segmentation) -> None:
    large = replace(result, image=result.image.resize((2 * SIDE, SIDE))).relabel()
    small = shown(large)
    assert small.image.size == (SIDE, SIDE // 2)
    assert small.refined is large.refined
    assert np.array_equal(small.labels, replace(large, image=small.image).relabel().labels)
    # Half the size each way: what is left of the difference lies at the borders of regions.
    assert np.mean(small.labels != large.labels[::2, ::2]) < 0.02
    assert shown(small) is small


def test_labels_arrive_as_they_are(result: Segmentation) -> None:
    view = labels_view(result)
    sent = opened(view["labels"])
    assert sent.mode == "L"
    assert max(sent.size) <= SIDE
    assert np.array_equal(np.asarray(sent), result.labels)
    assert len(np.unique(np.asarray(sent))) > 1
    assert view["areas"] == list(result.areas.values())
    assert view["background"] == pytest.approx(1 - sum(view["areas"]))


def test_labels_before_refinement_are_those_of_the_fused_maps(result: Segmentation) -> None:
    sent = opened(labels_view(result)["fused"])
    assert np.array_equal(np.asarray(sent), replace(result, refined=result.maps).relabel().labels)
    assert labels_view(replace(result, refiner=None))["fused"] is None


def test_the_scene_has_picture_classes_and_heatmaps(result: Segmentation) -> None:
    scene = scene_view(result)
    assert opened(scene["picture"]).size == (scene["width"], scene["height"])
    assert [item["name"] for item in scene["classes"]] == ["dog", "<b>", "nothing"]
    assert [item["colour"] for item in scene["classes"]] == colours(3) == ["#800000", "#008000", "#808000"]
    for key, maps in (("refined", result.refined), ("fused", result.maps)):
        heat = scene["heat"][key]
        grey = laid_out([np.asarray(opened(sheet)) for sheet in heat["sheets"]], heat, 3)
        peaks = np.array(heat["peaks"], np.float32)
        assert peaks.tolist() == maps.max((1, 2)).tolist()
        # Half a step of 255, and the rounding of that product.
        assert np.abs(grey / 255 * peaks[:, None, None] - maps).max() <= peaks.max() * (0.5 / 255 + 1e-6)
    assert scene_view(replace(result, refiner=None))["heat"]["fused"] is None


def test_all_of_it_is_json(result: Segmentation) -> None:
    for view in (scene_view(result), labels_view(result)):
        assert json.loads(json.dumps(view, allow_nan=False)) == view


@given(st.integers(1, 100), st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_every_map_is_found_on_sheets_that_a_canvas_takes(count: int, height: int, width: int, seed: int) -> None:
    # Of each map only a small part is not 0, so that large ones take no time to make.
    maps = np.zeros((count, height, width), np.uint8)
    part = maps[:, -3:, -3:]
    part[:] = np.random.default_rng(seed).integers(0, 256, part.shape)
    sheets, columns, rows = tiled(maps)
    assert all(side <= SHEET for sheet in sheets for side in sheet.shape)
    assert np.array_equal(
        laid_out(sheets, {"columns": columns, "rows": rows, "width": width, "height": height}, count), maps
    )
    # As few as there can be, and no more rows than are used.
    most = (SHEET // width) * (SHEET // height)
    assert len(sheets) == -(-count // most)
    assert sum(sheet.size for sheet in sheets) < (count + columns) * height * width


def test_a_map_that_is_larger_than_a_sheet_has_one_of_its_own() -> None:
    maps = np.arange(3, dtype=np.uint8)[:, None, None].repeat(SHEET + 1, 2)
    sheets, columns, rows = tiled(maps)
    assert [sheet.shape for sheet in sheets] == [(3, SHEET + 1)]
    assert (columns, rows) == (1, 3)
    assert [sheet.max() for sheet in tiled(maps.transpose(0, 2, 1))[0]] == [2]


@pytest.mark.full
def test_a_hundred_classes_with_large_maps(make_picture: Any) -> None:
    refined = np.random.default_rng(5).random((100, 660, 500), np.float32)
    result = Segmentation(
        image=make_picture(30, 40),
        classes=tuple(f"class {number}" for number in range(100)),
        labels=np.zeros((40, 30), np.int32),
        confidence=np.ones(100, np.float32),
        maps=refined[:, :30, :20],
        refined=refined,
        settings=Settings(),
        model="none",
        refiner="self",
    )
    heat = scene_view(result)["heat"]["refined"]
    sheets = [np.asarray(opened(sheet)) for sheet in heat["sheets"]]
    assert [sheet.shape for sheet in sheets] == [(3960, 4000), (3960, 4000), (660, 4000)]
    grey = laid_out(sheets, heat, 100)
    assert np.abs(grey / 255 * refined.max((1, 2))[:, None, None] - refined).max() <= 0.5 / 255 + 1e-6
