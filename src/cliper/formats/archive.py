"""Results in one format as the content of a single file, for a download."""

from __future__ import annotations

import io
import mimetypes
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage

__all__ = ["pack_results"]


def pack_results(
    format: Format, results: Iterable[tuple[str, LabeledImage]], classes: Sequence[str], options: FormatOptions
) -> tuple[bytes, str, str]:
    """Write results in a format: the content, file name and media type of the file, or of a zip if there are several.

    Args:
        format: of the files.
        results: a file name and a result for each image; names are safe, and differ before their suffixes.
        classes: of all results.
        options: of the format.

    Raises:
        InputError: what the format cannot represent.
    """
    if format.check_classes is not None:
        format.check_classes(classes, options)
    with tempfile.TemporaryDirectory(prefix="cliper-") as temporary:
        folder = Path(temporary)
        outputs = []
        for number, (name, result) in enumerate(results, start=1):
            info = ImageInfo(name, *result.image.size, number)
            for one in (format, *format.companions):
                one.write(result, folder / one.file_name(info.stem), info, options)
            outputs.append(ImageOutput(info, folder / format.file_name(info.stem)))
        if format.merge is not None and not (format.self_contained and len(outputs) == 1):
            format.merge(outputs, folder, classes, options)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if len(files) == 1:
            media_type = mimetypes.guess_type(files[0].name)[0] or "application/octet-stream"
            return files[0].read_bytes(), files[0].name, media_type
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, path.relative_to(folder))
        return buffer.getvalue(), f"{format.name}.zip", "application/zip"
