"""What a result can become: an indexed PNG, an overlay with a legend, a compressed archive of arrays.

Every writer goes through :func:`atomic_path`: a file is there whole, or not at all.
"""

from cliper.formats.atomic import atomic_path
from cliper.formats.label_png import read_label_png, write_label_png
from cliper.formats.npz import SavedResult, read_npz, write_npz
from cliper.formats.overlay import draw_overlay, write_overlay
from cliper.formats.palette import voc_palette

__all__ = [
    "SavedResult",
    "atomic_path",
    "draw_overlay",
    "read_label_png",
    "read_npz",
    "voc_palette",
    "write_label_png",
    "write_npz",
    "write_overlay",
]
