"""Rasters in, GeoTIFF and GeoPackage out; read back by rasterio and pyogrio (``make .venv-geo``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cliper
from cliper.errors import ImageError, InputError, OutputError
from cliper.formats.palette import voc_palette
from cliper.raster import Tiling, open_raster, segment_raster, segment_tiled
from segmenter_helpers import CLASSES

rasterio = pytest.importorskip("rasterio", reason="needs the extra geo; make .venv-geo")
pyogrio = pytest.importorskip("pyogrio", reason="needs the extra geo; make .venv-geo")

NAMES = ["dog", "green grass", "person"]


def write(path: Path, values: np.ndarray, **options: Any) -> Path:
    """A GeoTIFF of [bands, H, W] with a reference: pixels of half a metre in UTM zone 32 north."""
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000)}
    size = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **{**size, **layout, **place, **options}) as out:
        out.write(values)
    return path


def bands_of(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1)


@pytest.fixture
def photo_tif(tmp_path: Path, make_image: Any) -> Path:
    return write(tmp_path / "in.tif", bands_of(make_image(200, 150, seed=2)))


def read_all(path: Path, bands: tuple[int, ...] = ()) -> np.ndarray:
    with open_raster(path, bands) as reader:
        return np.concatenate([reader.read(top, min(top + 40, reader.height)) for top in range(0, reader.height, 40)])


def test_labels_are_those_of_the_whole_image(own_tiny: cliper.Segmenter, photo_tif: Path, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    found = segment_raster(
        own_tiny, photo_tif, tmp_path / "out.tif", CLASSES, tiling=Tiling(64), on_tile=lambda *n: done.append(n)
    )
    assert done[-1][0] == done[-1][1] == len(done)
    expected = segment_tiled(own_tiny, Image.fromarray(read_all(photo_tif)), CLASSES, tiling=Tiling(64))
    with rasterio.open(tmp_path / "out.tif") as out, rasterio.open(photo_tif) as source:
        assert (out.crs, out.transform, out.shape) == (source.crs, source.transform, source.shape)
        assert (out.dtypes, out.nodata, out.compression.name) == (("uint8",), None, "deflate")
        labels, colours = out.read(1), out.colormap(1)
        tags = [out.tags(1)[f"LABEL_{label}"] for label in range(4)]
    assert (labels != expected.labels).mean() < 1e-4  # rounding
    assert [colours[label][:3] for label in range(4)] == [tuple(colour) for colour in voc_palette(4).tolist()]
    assert tags == ["background", *NAMES]
    assert "<Category>green grass</Category>" in (tmp_path / "out.tif.aux.xml").read_text()
    assert found.areas == {name: pytest.approx((labels == i + 1).mean()) for i, name in enumerate(NAMES)}
    assert list(found.confidence.values()) == pytest.approx(expected.confidence.tolist())
    assert len(set(np.unique(labels))) > 1


def test_polygons_are_the_regions(own_tiny: cliper.Segmenter, photo_tif: Path, tmp_path: Path) -> None:
    for name in ("out.tif", "out.gpkg"):
        segment_raster(own_tiny, photo_tif, tmp_path / name, CLASSES, tiling=Tiling(64))
    meta, _, geometry, (labels, names) = pyogrio.raw.read(tmp_path / "out.gpkg", layer="labels")
    assert "32632" in meta["crs"] or "zone 32N" in meta["crs"]
    assert meta["geometry_type"] == "Polygon"
    assert {NAMES[label - 1] for label in labels} == set(names)
    from rasterio.features import rasterize

    with rasterio.open(tmp_path / "out.tif") as out:
        shapes = [(_geojson(one), int(label)) for one, label in zip(geometry, labels, strict=True)]
        drawn = rasterize(shapes, out.shape, transform=out.transform, dtype="uint8")
        assert np.array_equal(drawn, out.read(1))
        assert drawn.any()


def test_polygons_by_ground_control_points(own_tiny: cliper.Segmenter, photo_tif: Path, tmp_path: Path) -> None:
    """Points on the raster's own grid give the polygons of its transform."""
    from rasterio.control import GroundControlPoint

    with rasterio.open(photo_tif) as source:
        corners = [(row, column) for row in (0, source.height) for column in (0, source.width)]
        points = [GroundControlPoint(row, column, *source.transform @ (column, row)) for row, column in corners]
        write(tmp_path / "points.tif", source.read(), crs=None, transform=None)
    with rasterio.open(tmp_path / "points.tif", "r+") as out:
        out.gcps = (points, rasterio.CRS.from_epsg(32632))
    bounds = []
    for name in ("in", "points"):
        segment_raster(own_tiny, tmp_path / f"{name}.tif", tmp_path / f"{name}.gpkg", CLASSES, tiling=Tiling(64))
        info = pyogrio.read_info(tmp_path / f"{name}.gpkg")
        assert "32632" in info["crs"] or "zone 32N" in info["crs"]
        bounds.append(pyogrio.read_bounds(tmp_path / f"{name}.gpkg")[1])
    np.testing.assert_allclose(*bounds, atol=1e-6)


def test_rational_polynomial_coefficients_are_kept(own_tiny: cliper.Segmenter, tmp_path: Path, make_image: Any) -> None:
    offsets = {"height_off": 100.0, "lat_off": 48.5, "long_off": 9.0, "line_off": 24.0, "samp_off": 32.0}
    scales = {"height_scale": 500.0, "lat_scale": 0.1, "long_scale": 0.2, "line_scale": 24.0, "samp_scale": 32.0}
    terms = {f"{kind}_coeff": [1.0, *[0.25] * 19] for kind in ("line_num", "line_den", "samp_num", "samp_den")}
    rpcs = rasterio.rpc.RPC(**offsets, **scales, **terms)
    write(tmp_path / "in.tif", bands_of(make_image(64, 48)), crs=None, transform=None, rpcs=rpcs)
    segment_raster(own_tiny, tmp_path / "in.tif", tmp_path / "out.tif", CLASSES, tiling=Tiling(64))
    with rasterio.open(tmp_path / "out.tif") as out, rasterio.open(tmp_path / "in.tif") as source:
        assert out.rpcs.to_dict() == source.rpcs.to_dict()
        assert out.rpcs.lat_off == 48.5


def _geojson(wkb: bytes) -> dict[str, Any]:
    (count,), rings, place = np.frombuffer(wkb, "<u4", 1, 5), [], 9
    for _ in range(count):
        (points,) = np.frombuffer(wkb, "<u4", 1, place)
        rings.append(np.frombuffer(wkb, "<f8", 2 * int(points), place + 4).reshape(-1, 2).tolist())
        place += 4 + 16 * int(points)
    return {"type": "Polygon", "coordinates": rings}


def test_bands_of_other_types_are_stretched(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 101 * 50).reshape(101, 50)
    values = np.stack([ramp * 3000 + 200, ramp * 60_000, np.full_like(ramp, 7), ramp * 100])
    path = write(tmp_path / "a.tif", values.astype(np.uint16))
    pixels = read_all(path, (4, 2, 3))
    expected = np.rint(np.clip((ramp - 0.02) / 0.96, 0, 1) * 255)
    assert np.abs(pixels[..., 1].astype(int) - expected).max() <= 1
    assert np.abs(pixels[..., 0].astype(int) - expected).max() <= 3  # 100 levels
    assert not pixels[..., 2].any()  # one value only
    path = write(tmp_path / "b.tif", (ramp[None] - 0.5).astype(np.float32))
    assert np.abs(read_all(path)[..., 2].astype(int) - expected).max() <= 1
    path = write(tmp_path / "c.tif", (ramp[None] * 255).astype(np.uint8))  # stays as it is
    assert np.array_equal(read_all(path), np.repeat((ramp * 255).astype(np.uint8)[..., None], 3, 2))


def test_pixels_without_data_have_no_label(own_tiny: cliper.Segmenter, tmp_path: Path, make_image: Any) -> None:
    values = bands_of(make_image(200, 150, seed=2)).astype(np.float32)
    values[:, :, 120:] = np.nan
    values[:, :30] = -1
    path = write(tmp_path / "in.tif", values, nodata=-1)
    found = segment_raster(own_tiny, path, tmp_path / "out.tif", CLASSES, tiling=Tiling(64))
    with rasterio.open(tmp_path / "out.tif") as out:
        labels = out.read(1)
        assert out.nodata == 255
    assert np.array_equal(labels == 255, ~np.isfinite(values[0]) | (values[0] == -1))
    assert sum(found.areas.values()) == pytest.approx((labels[30:, :120] > 0).mean())


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "palette.png", "alpha.png"])
def test_plain_images_have_no_reference(own_tiny: cliper.Segmenter, tmp_path: Path, make_image: Any, kind: str) -> None:
    image = make_image(130, 100, seed=1)
    stored = {"palette.png": image.quantize(16), "alpha.png": image.convert("RGBA")}.get(kind, image)
    stored.save(tmp_path / f"in.{kind}")
    with Image.open(tmp_path / f"in.{kind}") as read:
        difference = np.abs(read_all(tmp_path / f"in.{kind}").astype(int) - np.asarray(read.convert("RGB")))
        assert difference.mean() < 2 if kind == "jpg" else not difference.any()  # GDAL has a JPEG decoder of its own
    segment_raster(own_tiny, tmp_path / f"in.{kind}", tmp_path / "out.tif", CLASSES, tiling=Tiling(64))
    with rasterio.open(tmp_path / "out.tif") as out:
        assert (out.crs, out.transform.is_identity) == (None, True)
    segment_raster(own_tiny, tmp_path / f"in.{kind}", tmp_path / "out.gpkg", CLASSES, tiling=Tiling(64))
    assert pyogrio.read_info(tmp_path / "out.gpkg")["crs"] is None


def test_files_that_cannot_be_read(own_tiny: cliper.Segmenter, photo_tif: Path, tmp_path: Path) -> None:
    def message(path: Path, **options: Any) -> str:
        with pytest.raises((ImageError, InputError, OutputError)) as caught:
            segment_raster(own_tiny, path, tmp_path / "out.tif", CLASSES, tiling=Tiling(64), **options)
        assert not (tmp_path / "out.tif").exists()
        return str(caught.value)

    data = photo_tif.read_bytes()
    (tmp_path / "short.tif").write_bytes(data[: len(data) * 2 // 3])
    assert "fetch or export it again" in message(tmp_path / "short.tif")
    (tmp_path / "text.tif").write_text("no raster")
    assert "expected a TIFF, PNG or JPEG" in message(tmp_path / "text.tif")
    (tmp_path / "a.vrt").write_text("<VRTDataset rasterXSize='5' rasterYSize='5'></VRTDataset>")
    assert "expected a TIFF, PNG or JPEG" in message(tmp_path / "a.vrt")
    assert "got nothing there" in message(tmp_path / "no.tif")
    assert "from 1 to 3, got 1,2,9" in message(photo_tif, bands=(1, 2, 9))
    assert "from 1 to 3, got 1,2" in message(photo_tif, bands=(1, 2))
    size = {"width": 16_384, "height": 17_408, "blockxsize": 16_384, "blockysize": 17_408}
    large = tmp_path / "block.tif"
    rasterio.open(large, "w", driver="GTiff", count=1, dtype="uint8", tiled=True, sparse_ok=True, **size).close()
    assert "tile it first" in message(large)
    assert not list(tmp_path.glob(".*"))


def test_file_of_the_wrong_name(own_tiny: cliper.Segmenter, photo_tif: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="expected a name ending in"):
        segment_raster(own_tiny, photo_tif, tmp_path / "out.png", CLASSES)
    content = photo_tif.read_bytes()
    with pytest.raises(InputError, match="is the raster itself"):
        segment_raster(own_tiny, photo_tif, photo_tif.parent / "." / photo_tif.name, CLASSES)
    assert photo_tif.read_bytes() == content


@pytest.mark.full
@pytest.mark.parametrize("name", ["out.tif", "out.gpkg"])
def test_file_that_cannot_be_written_whole(clip_folder: Path, tmp_path: Path, make_image: Any, name: str) -> None:
    """A limit on the size of files stands in for a full disk."""
    path = write(tmp_path / "in.tif", bands_of(make_image(2000, 1500, seed=2)))
    code = f"""
import resource, signal, sys
import cliper
from cliper.errors import OutputError
from cliper.raster import Tiling, segment_raster
segmenter = cliper.Segmenter.from_pretrained({str(clip_folder)!r}, device="cpu")
segmenter.encode_text({CLASSES!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    out = {str(tmp_path / "new" / name)!r}
    segment_raster(segmenter, {str(path)!r}, out, {CLASSES!r}, "none", tiling=Tiling(256, 0))
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith(f"cannot write '{tmp_path / 'new' / name}': "), done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stderr in ("", "_tiffWriteProc: File too large.\n")  # libtiff prints it by itself
    assert not (tmp_path / "new").exists()


@pytest.mark.full
def test_memory_does_not_grow_with_the_height(clip_folder: Path, tmp_path: Path) -> None:
    """A raster of 8000 x 16000 pixels has 384 MB; one of 8000 x 4000, 96 MB, takes nearly as much memory."""
    rng, peaks = np.random.default_rng(0), []
    for height in (4000, 16000):
        path = tmp_path / f"{height}.tif"
        options = {"driver": "GTiff", "width": 8000, "height": height, "count": 3, "dtype": "uint8", "tiled": True}
        with rasterio.open(path, "w", **options) as out:
            for top in range(0, height, 1000):
                rows = np.kron(rng.integers(0, 256, (3, 10, 80), np.uint8), np.ones((1, 100, 100), np.uint8))
                out.write(rows, window=((top, top + 1000), (0, 8000)))
        code = (
            "import cliper; from cliper.devices import peak_memory; from cliper.raster import Tiling, segment_raster;"
            f"segmenter = cliper.Segmenter.from_pretrained({str(clip_folder)!r}, device='cpu');"
            f"out = {str(tmp_path / 'out.tif')!r};"
            f"segment_raster(segmenter, {str(path)!r}, out, 'dog; cat', tiling=Tiling(1000, 0));"
            "print(peak_memory()['resident'] // 2**20)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] + 60, peaks  # MiB; a quarter of it are class maps, the rest is what allocators keep


@pytest.mark.full
def test_hostile_files_cost_little(tmp_path: Path) -> None:
    """Those of ``hostile_images``, read whole in one process."""
    from hostile_images import FILES

    for name, make in FILES.items():
        (tmp_path / name).write_bytes(make())
    code = """
import sys
from cliper.devices import peak_memory
from cliper.errors import ImageError
from cliper.raster import open_raster
from cliper.raster.reader import import_rasterio
import_rasterio()
before = peak_memory()["resident"]
for path in sys.argv[1:]:
    try:
        with open_raster(path) as reader:
            for top in range(0, reader.height, 100):
                reader.read(top, min(top + 100, reader.height))
    except ImageError as error:
        assert "\\n" not in str(error)
print((peak_memory()["resident"] - before) // 2**20)
"""
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 128  # MiB
