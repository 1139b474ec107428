"""Files of cameras, phones, scanners and programs are accepted and decoded to the same pixels as by Pillow."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

import hostile_images as hostile
from cliper.images import load_stream
from hostile_images import LONG, chunk, segment

WIDTH, HEIGHT = 96, 64


def photo(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Smooth colours; all corners differ."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [255 * x // width, 255 * y // height, 255 * (x + y) // (width + height)]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def encoded(format: str, image: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (photo() if image is None else image).save(buffer, format, **options)
    return buffer.getvalue()


def loaded(data: bytes) -> np.ndarray:
    return np.asarray(load_stream(io.BytesIO(data), "an image"))


def of_pillow(data: bytes) -> np.ndarray:
    """Pixels by Pillow alone: first frame, EXIF orientation applied, RGB."""
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))


def phone_exif(orientation: int = 1) -> Image.Exif:
    """EXIF with a maker note of 60,000 bytes, GPS and texts."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Maker", "Model", orientation
    exif[0x011A], exif[0x011B], exif[0x0128] = 72.0, 72.0, 2
    exif.get_ifd(0x8769).update({0x829A: 0.008, 0x9003: "2024:05:01 12:00:00", 0x927C: bytes(range(250)) * 240})
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.5), 3: "E", 4: (13.0, 24.0, 36.0)})
    return exif


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + b" " * 60_000 + b"</x:xmpmeta>"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def jpeg_of_a_phone(width: int = 8160, height: int = 6120) -> bytes:
    """Progressive, with metadata."""
    return encoded(
        "JPEG",
        photo().resize((width, height)),
        progressive=True,
        quality=90,
        exif=phone_exif(),
        xmp=XMP,
        icc_profile=PROFILE,
    )


def jpeg_with_thumbnail() -> bytes:
    """EXIF with a second directory, which holds a thumbnail; depth maps in 200 further segments of XMP."""
    thumbnail = encoded("JPEG", photo(16, 12))
    first = [(0x010F, 2, 4, int.from_bytes(b"abc\0", "little"))]
    block = bytearray(hostile.tiff_block(thumbnail, [first, [(0x0201, LONG, 1, 8), (0x0202, LONG, 1, len(thumbnail))]]))
    struct.pack_into("<L", block, 8 + len(thumbnail) + 2 + 12, 8 + len(thumbnail) + 2 + 12 + 4)
    extended = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(60_000)) * 200
    body = encoded("JPEG")
    return body[:2] + segment(0xE1, b"Exif\0\0" + bytes(block)) + extended + body[2:]


def mpo_of_a_phone() -> bytes:
    return encoded("MPO", save_all=True, append_images=[photo(48, 32)], exif=phone_exif())


def ultra_hdr() -> bytes:
    """An MPO whose second image is a gain map."""
    packet = segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version="1.0"/>')
    body = mpo_of_a_phone()
    return body[:2] + packet + body[2:]


def png_with_metadata() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a prompt, " * 2000)
    info.add_itxt("workflow", "{}" * 50_000)
    info.add_text("packed", "text " * 10_000, zip=True)
    noise = np.random.default_rng(0).bytes(600_000)
    return encoded("PNG", pnginfo=info, icc_profile=noise, exif=phone_exif())


def png_of_small_chunks() -> bytes:
    """libpng writes pixels in chunks of 8 KB, some programs in far smaller ones."""
    body = encoded("PNG", photo(640, 480))
    at = body.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">L", body, at)
    data = body[at + 8 : at + 8 + length]
    return (
        body[:at] + b"".join(chunk(b"IDAT", data[i : i + 64]) for i in range(0, length, 64)) + body[at + 12 + length :]
    )


def tiled_tiff() -> bytes:
    """Grey, in deflated tiles of 16x16 pixels."""
    grey = np.asarray(photo().convert("L"))
    tiles = [
        zlib.compress(grey[y : y + 16, x : x + 16].tobytes()) for y in range(0, HEIGHT, 16) for x in range(0, WIDTH, 16)
    ]
    starts = np.cumsum([8, *map(len, tiles)])
    offsets, lengths = struct.pack("<24L", *starts[:-1]), struct.pack("<24L", *map(len, tiles))
    place = int(starts[-1])
    tags = {"t256": (LONG, 1, WIDTH), "t257": (LONG, 1, HEIGHT), "t259": (3, 1, 8), "t262": (3, 1, 1)}
    tags |= {"t322": (LONG, 1, 16), "t323": (LONG, 1, 16), "t324": (LONG, 24, place), "t325": (LONG, 24, place + 96)}
    return hostile.tiff(data=b"".join(tiles) + offsets + lengths, t273=None, t278=None, t279=None, **tags)


def pages(**options: Any) -> bytes:
    return encoded("TIFF", save_all=True, append_images=[photo(8, 8), photo(9, 9)], **options)


def animation(format: str, **options: Any) -> bytes:
    further = [photo().transpose(Image.Transpose.ROTATE_180)] * 30
    return encoded(format, save_all=True, append_images=further, duration=40, comment=b"made by hand " * 50, **options)


COMMON: dict[str, Callable[[], bytes]] = {
    "a phone's progressive JPEG of 50 megapixels": jpeg_of_a_phone,
    "a phone's progressive JPEG of 3 megapixels": lambda: jpeg_of_a_phone(2040, 1530),
    "a JPEG with a thumbnail and depth maps": jpeg_with_thumbnail,
    "a grey JPEG": lambda: encoded("JPEG", photo().convert("L")),
    "a CMYK JPEG": lambda: encoded("JPEG", photo().convert("CMYK")),
    "a progressive CMYK JPEG": lambda: encoded("JPEG", photo().convert("CMYK"), progressive=True),
    "a JPEG with restart markers": lambda: encoded("JPEG", restart_marker_blocks=1, progressive=True),
    "a panorama": lambda: encoded("JPEG", photo().resize((30_000, 500))),
    "a phone's MPO": mpo_of_a_phone,
    "an Ultra HDR JPEG": ultra_hdr,
    "a PNG": lambda: encoded("PNG"),
    "a PNG with profile and texts": png_with_metadata,
    "a PNG of small chunks": png_of_small_chunks,
    "an animated PNG": lambda: animation("PNG"),
    "an animated GIF": lambda: animation("GIF"),
    "a WebP": lambda: encoded("WEBP", exif=phone_exif(), icc_profile=PROFILE, xmp=XMP),
    "a lossless WebP": lambda: encoded("WEBP", lossless=True),
    "an animated WebP": lambda: animation("WEBP"),
    "an AVIF": lambda: encoded("AVIF", exif=phone_exif(), icc_profile=PROFILE, xmp=XMP),
    "an animated AVIF": lambda: encoded("AVIF", save_all=True, append_images=[photo()] * 5),
    "a JP2": lambda: encoded("JPEG2000"),
    "a tiled JPEG 2000 of layers": lambda: encoded(
        "JPEG2000",
        photo(600, 400),
        no_jp2=True,
        tile_size=(128, 128),
        quality_layers=[40, 20, 10, 1],
        precinct_size=(64, 64),
    ),
    "a TIFF": lambda: encoded("TIFF", exif=phone_exif()),
    "a TIFF by LZW": lambda: encoded("TIFF", compression="tiff_lzw"),
    "a TIFF by deflate": lambda: encoded("TIFF", compression="tiff_adobe_deflate"),
    "a TIFF by packbits": lambda: encoded("TIFF", compression="packbits"),
    "a TIFF by JPEG": lambda: encoded("TIFF", photo(640, 480), compression="jpeg", quality=95),
    "a fax": lambda: encoded("TIFF", photo().convert("1"), compression="group4"),
    "a tiled TIFF": tiled_tiff,
    "a BigTIFF": lambda: encoded("TIFF", big_tiff=True),
    "a TIFF of several pages": pages,
    "a TIFF of several pages by LZW": lambda: pages(compression="tiff_lzw"),
    "a CMYK TIFF": lambda: encoded("TIFF", photo().convert("CMYK")),
    "a BMP": lambda: encoded("BMP"),
    "a BMP with a palette": lambda: encoded("BMP", photo().quantize(64)),
    "a PPM": lambda: encoded("PPM"),
    "a PPM of text": lambda: b"P3 # by hand\n2 1 # pixels\n255\n255 0 0\n0 0 255\n",
}


LARGE = "a phone's progressive JPEG of 50 megapixels"


@pytest.mark.parametrize("case", [pytest.param(name, marks=[pytest.mark.full] * (name == LARGE)) for name in COMMON])
def test_common_file_has_the_same_pixels_as_with_pillow(case: str) -> None:
    data = COMMON[case]()
    np.testing.assert_array_equal(loaded(data), of_pillow(data))


def test_grey_of_16_bit_keeps_its_range() -> None:
    ramp = np.linspace(0, 65535, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16)
    for format, options in [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("JPEG2000", {})]:
        given = loaded(encoded(format, Image.fromarray(ramp), **options))
        np.testing.assert_array_equal(given, np.rint(ramp / 257).astype(np.uint8)[..., None].repeat(3, axis=-1))


def test_transparent_palette_is_blended_with_white() -> None:
    image = photo().quantize(16)
    given = loaded(encoded("PNG", image, transparency=3))
    expected = np.asarray(image.convert("RGB")).copy()
    expected[np.asarray(image) == 3] = 255
    np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_applied_in_every_format(format: str, orientation: int) -> None:
    options: dict[str, Any] = {"save_all": True, "append_images": [photo()]} if format == "MPO" else {}
    # Pillow's AVIF writer replaces the EXIF orientation by a property of the file.
    data = encoded(format, exif=phone_exif(orientation), **options)
    given = loaded(data)
    assert given.shape[:2] == ((WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH))
    np.testing.assert_array_equal(given, of_pillow(data))
    upright = Image.fromarray(given)
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    stored = upright if turned is None else upright.transpose(turned)
    # Lossy formats of smooth colours stay within 12 of 255; a wrong turn is off by more than 100 in the corners.
    np.testing.assert_allclose(np.asarray(stored, int), np.asarray(photo(), int), atol=12)
