"""Names of results: whatever the formats, no two files have one, and nothing is refused without a reason."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from cliper.formats import find_format, format_names
from cliper.scale.claims import Claims, is_refusal
from cliper.scale.job import output_names
from cliper.scale.manifest import Record

# Names that are each other's in many ways.
STEMS = st.lists(
    st.sampled_from(["a", ".coco", ".label-studio", ".gallery", ".labels", "coco", "b/"]), min_size=1, max_size=3
)
PICTURES = st.builds(lambda parts, end: "".join(parts) + end, STEMS, st.sampled_from([".jpg", ".png", ".coco.jpg"]))
FORMATS = st.lists(st.sampled_from(format_names()), min_size=1, max_size=5, unique=True)


def is_like(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) and name.count("/") == pattern.count("/")


@given(st.lists(PICTURES, unique=True, max_size=8), FORMATS)
def test_no_two_files_have_one_name(pictures: Sequence[str], names: Sequence[str]) -> None:
    formats = [find_format(name) for name in names]
    claims = Claims(formats, ("run.json",))
    patterns = ["run.json", *(pattern for format in formats for pattern in format.merged_files)]
    files: set[str] = set()
    for picture in pictures:
        own = output_names(picture, formats)
        taken = files & set(own)
        of_the_run = [name for name in own if any(is_like(name, pattern) for pattern in patterns)]
        reason = claims.take(picture)
        assert (reason is None) is not bool(taken or of_the_run)
        if reason is None:
            assert claims.has(picture)
            assert claims.take(picture) is None
            files |= set(own)
        else:
            assert reason.partition(": ")[2].partition(";")[0] in {*taken, *of_the_run}
            assert is_refusal(Record.failed(picture, reason))


def test_names_become_free() -> None:
    claims = Claims([find_format("coco"), find_format("labelme")])
    claims.learn(Record("b.png"))
    assert claims.has("b.png")
    assert "another picture's: b.coco.json" in str(claims.take("b.coco.jpg"))
    assert "another picture's: b.coco.json; rename one" in str(claims.take("b.bmp"))
    claims.release("b.bmp")  # it never had them
    assert claims.refusal("b.bmp") is not None
    assert claims.refusal("b.bmp", gone=lambda owner: True) is None
    claims.learn(Record.damaged("b.png", "empty"))
    assert claims.has("b.png")
    claims.learn(Record.failed("b.png", "bad"))
    assert claims.take("b.bmp") is None
    assert claims.refusal("b.png") is not None
    claims.release("b.bmp")
    assert claims.take("b.png") is None


def test_folders_in_the_way_of_files_of_the_run() -> None:
    claims = Claims([find_format("cvat"), find_format("gallery")], ("manifest-parts",))
    for name in (
        "cvat.zip/a.jpg",
        "cvat.zip/c/a.jpg",
        "cvat-2.zip/a.jpg",
        "gallery/index.html/a.jpg",
        "manifest-parts/a.jpg",
    ):
        assert f"a file of the run: {name.rpartition('/')[0].removesuffix('/c')}; rename it" in str(claims.take(name))
    for name in ("gallery/a.jpg", "coco.json/a.jpg", "cvat.jpg", "index.jpg"):
        assert claims.take(name) is None
