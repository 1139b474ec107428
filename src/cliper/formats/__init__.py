"""Output formats: images for viewing, files for training and for annotation tools.

:func:`find_format` gives every format by its name, with one interface; the other functions write and read single kinds
of files. Every writer goes through :func:`cliper.files.atomic_write`.
"""

from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage
from cliper.formats.label_png import read_label_png, write_label_png
from cliper.formats.npz import SavedResult, read_npz, write_npz
from cliper.formats.overlay import draw_overlay, write_overlay
from cliper.formats.palette import voc_palette
from cliper.formats.registry import find_format, find_formats, format_names

__all__ = [
    "Format",
    "FormatOptions",
    "ImageInfo",
    "ImageOutput",
    "LabeledImage",
    "SavedResult",
    "draw_overlay",
    "find_format",
    "find_formats",
    "format_names",
    "read_label_png",
    "read_npz",
    "voc_palette",
    "write_label_png",
    "write_npz",
    "write_overlay",
]
