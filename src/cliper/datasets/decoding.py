"""Reading image and mask files of a benchmark, in this process or in one with limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.errors import CliperError, ImageError, quote_path, reraise

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Decode", "decode_file", "file_decoder"]

Decode = Callable[[Path, str], "npt.NDArray[Any]"]


def decode_file(path: Path, kind: str) -> npt.NDArray[Any]:
    """Decode an image or a mask.

    Args:
        path: of the file.
        kind: ``"upright"`` for an image that is rotated by its EXIF orientation, ``"stored"`` for one that is not,
            ``"labels"`` for a mask.

    Returns:
        [H, W, 3] uint8, RGB; or of a mask [H, W] int32, the stored values.

    Raises:
        ImageError: the file cannot be read.
        ResourceError: out of memory.
    """
    import numpy as np

    from cliper.formats import read_label_png
    from cliper.images import decoding_memory_errors, load_image, open_image

    if kind == "labels":
        return read_label_png(path)
    if kind == "upright":
        return np.asarray(load_image(path))
    stored = open_image(path)
    name = quote_path(path)
    message = f"expected a grey or colour image, got mode {stored.mode}: {name}"
    with reraise((ValueError, OSError), ImageError, message, "download it again"), decoding_memory_errors(name):
        return np.asarray(stored.convert("RGB"))


def file_decoder() -> Callable[[dict[str, Any], bytes], tuple[dict[str, Any], npt.NDArray[Any] | None]]:
    """The handler of a :class:`cliper.decode_pool.DecodePool`; labels come as their bytes, [H, W, 4] uint8."""
    import numpy as np

    def decode(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], npt.NDArray[Any] | None]:
        try:
            array = decode_file(Path(request["path"]), request["kind"])
        except (CliperError, MemoryError) as error:
            return {"error": str(error) or f"out of memory while decoding {quote_path(request['path'])}"}, None
        return {}, array if array.ndim == 3 else np.ascontiguousarray(array)[..., None].view(np.uint8)

    return decode
