"""Results as the content of a single file."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from format_helpers import CLASSES, labels_of, result_of

from cliper.errors import InputError
from cliper.formats import FormatOptions, find_format, format_names
from cliper.formats.archive import pack_results


@pytest.mark.parametrize("name", format_names())
def test_single_image_is_a_file_unless_there_are_files_about_the_run(name: str) -> None:
    format = find_format(name)
    content, file, media_type = pack_results(format, [("a.png", result_of(labels_of(0)))], CLASSES, FormatOptions())
    assert content
    if format.merge is None or format.self_contained:
        assert file == f"a{format.suffix}"
    else:
        assert (file, media_type) == (f"{name}.zip", "application/zip")


def test_several_images_are_a_zip() -> None:
    results = [(name, result_of(labels_of(number))) for number, name in enumerate(("a.png", "b.jpg"))]
    content, _, _ = pack_results(find_format("coco"), results, CLASSES, FormatOptions())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (merged,) = set(archive.namelist()) - {"a.coco.json", "b.coco.json"}
        assert len(json.loads(archive.read(merged))["images"]) == 2


def test_class_names_are_checked() -> None:
    with pytest.raises(InputError, match="printable"):
        pack_results(find_format("label-studio"), [], ["a\0"], FormatOptions())
