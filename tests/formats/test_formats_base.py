"""The options and descriptions that all formats share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cliper.errors import InputError
from cliper.formats import FormatOptions, ImageInfo, ImageOutput


@pytest.mark.parametrize(
    "wrong", [{"tolerance": -1}, {"tolerance": float("nan")}, {"quality": 0}, {"quality": 101}, {"quality": 9.5}]
)
def test_option_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        FormatOptions(**wrong)


@pytest.mark.parametrize(("name", "stem"), [("a.b.png", "a.b"), ("x.y/a", "x.y/a"), ("x/.hidden", "x/.hidden")])
def test_stem_is_the_name_without_suffix(name: str, stem: str) -> None:
    assert ImageInfo(name, 1, 1).stem == stem


@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, "No such file"), ("{", "Expecting"), ("[]", "expected a JSON dict"), ("\ud800", "utf-8")],
)
def test_damaged_json_output_is_named(text: str | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=rf"a\.json.*{reason}.*process the image again"):
        ImageOutput(ImageInfo("a.png", 1, 1), path).read_json(dict)
