"""The colours of labels."""

import numpy as np

from cliper.formats import voc_palette

VOC21 = [
    (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128),
    (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128),
    (64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128),
]  # fmt: skip


def test_first_21_colours_are_those_of_voc() -> None:
    palette = voc_palette()
    assert palette.shape == (256, 3)
    assert palette.dtype == np.uint8
    assert [tuple(colour) for colour in palette[:21].tolist()] == VOC21
    assert palette[255].tolist() == [224, 224, 192]  # the benchmark's void


def test_colours_above_256_continue_and_differ() -> None:
    palette = voc_palette(5000)
    np.testing.assert_array_equal(palette[:256], voc_palette())
    assert len(np.unique(palette, axis=0)) == 5000


def test_no_colours() -> None:
    assert voc_palette(0).shape == (0, 3)
