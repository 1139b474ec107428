"""Annotations to label maps: invalid ones are named, valid ones give the masks of pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from cliper.datasets.prepare.rasterize import rasterize
from cliper.errors import ImageError

HEIGHT, WIDTH = 30, 40
PIXELS = HEIGHT * WIDTH


def polygon(*numbers: Any) -> list[list[Any]]:
    return [[1, 1, *numbers]]


def runs(counts: Any, size: Any = (HEIGHT, WIDTH)) -> dict[str, Any]:
    return {"size": list(size), "counts": counts}


BAD_SEGMENTATIONS = {
    "a coordinate of 1e9": (polygon(1e9, 1, 4, 4), "expected numbers from -40 to 80 for x, got 1000000000.0"),
    "a coordinate of -1e9": (polygon(4, -1e9, 4, 4), "expected numbers from -30 to 60 for y, got -1000000000.0"),
    "a coordinate of 1e300": (polygon(4, 1, 4, 1e300), r"got 1e\+300"),
    "an integer that is no float": (polygon(4, 1, 4, 10**400), "for y, got 1000"),
    "NaN": (polygon(float("nan"), 1, 4, 4), "got nan"),
    "infinity": (polygon(float("-inf"), 1, 4, 4), "got -inf"),
    "true": (polygon(True, 1, 4, 4), "got True"),
    "a text": (polygon("4", 1, 4, 4), "got '4'"),
    "null": (polygon(None, 1, 4, 4), "got None"),
    "a list in a polygon": (polygon([4], 1, 4, 4), r"got \[4\]"),
    "an odd number of coordinates": (polygon(4, 1, 4, 4, 2), "3 or more points .*, got 7 numbers"),
    "two points": (polygon(4, 4), "3 or more points .*, got 4 numbers"),
    "an empty polygon": ([[]], "3 or more points .*, got 0 numbers"),
    "two points after a polygon": ([[1, 1, 4, 1, 4, 4], [1, 1, 4, 4]], "got 4 numbers"),
    "no polygon": ([], "expected 1 to 10,000 polygons, got 0"),
    "too many polygons": ([[1, 1, 4, 1, 4, 4]] * 10_001, "got 10,001"),
    "too long an outline": (polygon(*[0, 0, 40, 30] * 20_000), "1,000,000 pixels along the outlines"),
    "a polygon that is no list": ([5], r"expected a polygon \[x, y, x, y, ...\], got 5"),
    "no segmentation": (None, "expected polygons or run lengths as segmentation, got None"),
    "a text as segmentation": ("all", "expected polygons or run lengths as segmentation, got 'all'"),
    "an enormous size": (runs([10**12], [10**6, 10**6]), r"size \[30, 40\], got \[1000000, 1000000\]"),
    "an enormous size, compressed": (runs("PPYo10", [10**6, 10**6]), r"size \[30, 40\], got \[1000000, 1000000\]"),
    "another image's size": (runs([PIXELS], [WIDTH, HEIGHT]), r"size \[30, 40\], got \[40, 30\]"),
    "a size of texts": (runs([PIXELS], ["30", "40"]), r"size \[30, 40\], got \['30', '40'\]"),
    "a size of one": (runs([PIXELS], [PIXELS]), r"got \[1200\]"),
    "no size": ({"counts": [PIXELS]}, r"size \[30, 40\], got None"),
    "no counts": ({"size": [HEIGHT, WIDTH]}, "expected counts as a list or a string, got None"),
    "counts that are short": (runs([PIXELS - 1]), "a sum of 1,200 pixels, got 1,199"),
    "counts that are long": (runs([PIXELS, 1]), "a sum of 1,200 pixels, got 1,201"),
    "no runs": (runs([]), "a sum of 1,200 pixels, got 0"),
    "no runs, compressed": (runs(""), "a sum of 1,200 pixels, got 0"),
    "a negative count": (runs([-5, PIXELS + 5]), "expected counts from 0 to 1,200, got -5"),
    "a negative count, compressed": (runs("Kj0"), "expected counts from 0 to 1,200, got -5"),
    "a count of 10^30": (runs([10**30]), "expected counts from 0 to 1,200, got 1000"),
    "a fraction": (runs([0.5, PIXELS - 0.5]), "got 0.5"),
    "a count of true": (runs([True, PIXELS - 1]), "got True"),
    "compressed counts that do not end": (runs("oooo"), "last number does not end"),
    "another character": (runs("caf\u00e9"), "another character"),
}


def paint(*segmentations: Any, height: Any = HEIGHT, width: Any = WIDTH, category: Any = 7) -> np.ndarray:
    entries = [{"category_id": category, "segmentation": item} for item in segmentations]
    annotations = [(f"annotation {i}", entry) for i, entry in enumerate(entries, 1)]
    return rasterize("a.json: image 5", height, width, annotations, {7: 3})


@pytest.mark.parametrize("case", BAD_SEGMENTATIONS)
def test_bad_segmentation_is_named(case: str) -> None:
    segmentation, message = BAD_SEGMENTATIONS[case]
    with pytest.raises(ImageError, match=f"^a.json: image 5, annotation 2: .*{message}") as caught:
        paint([[1, 1, 4, 1, 4, 4]], segmentation)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("category", [8, -1, None, "7", 7.0, True, [7], 10**30])
def test_unknown_category_is_named(category: Any) -> None:
    with pytest.raises(ImageError, match="annotation 1: expected one of the 1 category ids, got"):
        paint([[1, 1, 4, 1, 4, 4]], category=category)


@pytest.mark.parametrize(
    ("height", "width", "message"),
    [
        (100_000, 100_000, "at most 128 megapixels, got 100000x100000"),
        (10**400, 10, "expected a positive integer height, got 1000"),
        (0, 10, "expected a positive integer height, got 0"),
        (-30, -40, "expected a positive integer height, got -30"),
        (None, 10, "expected a positive integer height, got None"),
        (10, "10", "expected a positive integer width, got '10'"),
        (True, 10, "expected a positive integer height, got True"),
        (10, float("nan"), "expected a positive integer width, got nan"),
    ],
)
def test_bad_image_size_is_named(height: Any, width: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        paint(height=height, width=width)
    assert "a.json: image 5" in str(caught.value)


def test_too_many_annotations_for_the_size_are_refused_before_painting() -> None:
    full = runs([0, 10_000 * 10_000], (10_000, 10_000))
    with pytest.raises(ImageError, match="got 101 annotations in an image of 10000x10000"):
        paint(*[full] * 101, height=10_000, width=10_000)


def test_too_long_outlines_of_one_image_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cliper.datasets.prepare.rasterize._MAX_OUTLINES", 25)
    triangle = [[0, 0, 3, 0, 3, 3]]  # 12 pixels along its outline
    paint(triangle, triangle)
    with pytest.raises(ImageError, match="annotation 3: expected at most 25 pixels along all outlines of an image"):
        paint(triangle, triangle, triangle)


def test_each_bad_annotation_of_an_image_is_named_up_to_five() -> None:
    good, bad = [[1, 1, 4, 1, 4, 4]], [[1, 1]]
    with pytest.raises(ImageError) as caught:
        paint(bad, good, None, bad)
    assert [f"annotation {i}: " in str(caught.value) for i in range(1, 5)] == [True, False, True, True]
    with pytest.raises(ImageError, match=r"annotation 5: .*; and 2 more; ") as caught:
        paint(*[bad] * 7)
    assert "annotation 6" not in str(caught.value)


def test_polygons_are_merged_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    merge, work = coco.merge, 0

    def counting_merge(masks: list[dict[str, Any]]) -> dict[str, Any]:
        nonlocal work
        for i in range(2, len(masks) + 1):  # pycocotools merges the i-th with the union of those before it
            work += len(merge(masks[: i - 1])["counts"]) + len(masks[i - 1]["counts"])
        return merge(masks)

    count = 256  # squares of 4x4 pixels that do not touch
    corners = [(10 * (i % 16), 10 * (i // 16)) for i in range(count)]
    polygons = [[x, y, x + 4, y, x + 4, y + 4, x, y + 4] for x, y in corners]
    monkeypatch.setattr(coco, "merge", counting_merge)
    painted = paint(polygons, height=160, width=160)
    assert (painted == 3).sum() == 16 * count
    longest = max(len(item["counts"]) for item in coco.frPyObjects(polygons, 160, 160))
    assert work <= count * 8 * longest  # 2^8 polygons: eight times, the second half of which at most as long again


def by_pycocotools(segmentation: Any) -> np.ndarray:
    """The mask that pycocotools makes of a segmentation in any of the three forms."""
    if isinstance(segmentation, list):
        encoded = coco.merge(coco.frPyObjects(segmentation, HEIGHT, WIDTH))
    elif isinstance(segmentation["counts"], list):
        encoded = coco.frPyObjects(segmentation, HEIGHT, WIDTH)
    else:
        encoded = segmentation
    return np.asarray(coco.decode(encoded))


# Within the accepted range, far outside of the image too, integers and fractions.
POINTS = st.tuples(
    st.one_of(st.integers(-WIDTH, 2 * WIDTH), st.floats(-WIDTH, 2 * WIDTH)),
    st.one_of(st.integers(-HEIGHT, 2 * HEIGHT), st.floats(-HEIGHT, 2 * HEIGHT)),
)
POLYGONS = st.lists(
    st.lists(POINTS, min_size=3, max_size=8).map(lambda points: [value for point in points for value in point]),
    min_size=1,
    max_size=4,
)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@settings(deadline=None)
@given(POLYGONS)
def test_polygons_are_filled_as_pycocotools_fills_them(polygons: list[list[float]]) -> None:
    np.testing.assert_array_equal(paint(polygons), 3 * by_pycocotools(polygons))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.booleans())
def test_run_lengths_are_expanded_as_pycocotools_expands_them(seed: int, share: float, compressed: bool) -> None:
    mask = np.random.default_rng(seed).random((HEIGHT, WIDTH)) < share
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    segmentation = runs(encoded["counts"].decode())
    if not compressed:
        edges = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=False))
        segmentation = runs(np.diff(edges, prepend=0, append=PIXELS).tolist())
    np.testing.assert_array_equal(by_pycocotools(segmentation), mask)
    np.testing.assert_array_equal(paint(segmentation), 3 * mask)
