"""Untrusted images in, tensors out.

:mod:`~cliper.images.limits` checks the structure of a file before it is decoded, :mod:`~cliper.images.decoding` decodes
it as stored, :mod:`~cliper.images.loading` makes it an upright 8-bit RGB image, and
:mod:`~cliper.images.preprocessing` turns that into the tensor that an encoder takes. All but the last work without
torch.
"""

from cliper.images.decoding import MAX_PIXELS, check_file, check_pixels, decoding_memory_errors, open_image
from cliper.images.loading import ImageSource, load_image, load_stream
from cliper.images.preprocessing import MAX_PATCHES, column_bounds, preprocess, resized_shape, to_tensor

__all__ = [
    "MAX_PATCHES",
    "MAX_PIXELS",
    "ImageSource",
    "check_file",
    "check_pixels",
    "column_bounds",
    "decoding_memory_errors",
    "load_image",
    "load_stream",
    "open_image",
    "preprocess",
    "resized_shape",
    "to_tensor",
]
