"""Damaged images, and formats that are not read."""

from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cliper.errors import ImageError
from cliper.images import load_stream


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(stream, kind)
    return stream.getvalue()


def damaged(data: bytes, draw: st.DataObject) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 6))):
        place = draw.draw(st.integers(0, len(changed) - 1))
        changed[place : place + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=4))
    return bytes(changed[: draw.draw(st.integers(len(changed) // 2, len(changed)))])


@pytest.mark.full
@settings(max_examples=200, deadline=None, derandomize=True)
@given(draw=st.data(), kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF"]))
def test_damaged_images_are_decoded_or_refused(draw: st.DataObject, kind: str) -> None:
    with contextlib.suppress(ImageError):
        assert load_stream(io.BytesIO(damaged(encoded(kind), draw)), "image", max_pixels=10**6).mode == "RGB"


@pytest.mark.parametrize("kind", ["ICO", "ICNS", "TGA", "PCX", "SGI", "DDS", "EPS", "IM", "MSP", "XBM", "BLP", "QOI"])
def test_decoders_of_other_formats_are_not_reached(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Not even to look at a header: some decode on opening, some start programs."""
    stream, mode = io.BytesIO(), {"MSP": "1", "XBM": "1", "BLP": "P"}.get(kind, "RGB")
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").convert(mode).save(stream, kind)
    assert Image.open(stream).format == kind  # Pillow would read it
    monkeypatch.setitem(Image.OPEN, kind, (lambda *_: pytest.fail("its decoder was reached"), Image.OPEN[kind][1]))
    stream.seek(0)
    with pytest.raises(ImageError, match="got something else"):
        load_stream(stream, "image", max_pixels=10**6)
