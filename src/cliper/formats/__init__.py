"""What a result can become: files for eyes, for training and for annotation tools.

:func:`find_format` has all of them by name, alike; the functions beside it write and read single ones.
Every writer goes through :func:`cliper.files.atomic_write`: a file is there whole, or not at all.
"""

from cliper.formats.label_png import read_label_png, write_label_png
from cliper.formats.npz import SavedResult, read_npz, write_npz
from cliper.formats.overlay import draw_overlay, write_overlay
from cliper.formats.palette import voc_palette
from cliper.formats.registry import Format, FormatOptions, ImageInfo, ImageOutput, find_format, format_names

__all__ = [
    "Format",
    "FormatOptions",
    "ImageInfo",
    "ImageOutput",
    "SavedResult",
    "draw_overlay",
    "find_format",
    "format_names",
    "read_label_png",
    "read_npz",
    "voc_palette",
    "write_label_png",
    "write_npz",
    "write_overlay",
]
