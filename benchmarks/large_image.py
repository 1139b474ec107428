"""Time and memory of a GeoTIFF of 20,000 x 20,000 pixels, segmented in tiles into a GeoTIFF or GeoPackage.

    python benchmarks/large_image.py
    python benchmarks/large_image.py --tile 2048 --overlap 0.25

The raster is a mosaic of the photo that comes with the package, each copy mirrored against its neighbours, written by
rasterio (extra ``geo``). The bundled checkpoint segments it in a process of its own, whose largest resident memory is
reported; ``start`` is that before the first tile, with the model loaded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import cliper
from cliper.raster.reader import import_rasterio
from machine import write_report

CLASSES = ["horse", "grass", "sky"]

_CHILD = """
import json, sys, time
import cliper
from cliper.devices import peak_memory
from cliper.raster import Tiling, segment_raster
path, out, tile, overlap, device, classes = json.loads(sys.argv[1])
segmenter = cliper.Segmenter.from_pretrained("mini", device=device)
segmenter(cliper.example_photo(), classes, "none")
start, began, tiles = peak_memory()["resident"], time.perf_counter(), []
found = segment_raster(
    segmenter, path, out, classes, "none", tiling=Tiling(tile, overlap),
    on_tile=lambda done, total: tiles.append((total, time.perf_counter() - began)),
)
values = {"tiles": tiles[-1][0], "tile_seconds": tiles[-1][1], "seconds": time.perf_counter() - began}
print(json.dumps({**values, "peak_memory": peak_memory()["resident"], "start_memory": start, "areas": found.areas}))
"""


def write_mosaic(path: Path, side: int) -> None:
    """A deflated GeoTIFF of side x side pixels, row by row."""
    rasterio = import_rasterio()
    photo = np.asarray(Image.open(cliper.example_photo()).convert("RGB"))
    line = np.concatenate([photo, photo[:, ::-1]], axis=1)
    line = np.tile(line, (1, -(-side // line.shape[1]), 1))[:, :side]
    options = {"tiled": True, "compress": "deflate", "crs": "EPSG:32632", "bigtiff": "if_safer", "zlevel": 1}
    place = rasterio.Affine(0.1, 0, 500_000, 0, -0.1, 5_400_000)
    size = {"width": side, "height": side, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", transform=place, **size, **options) as out:
        for index, top in enumerate(range(0, side, len(line))):
            rows = (line[::-1] if index % 2 else line)[: side - top]
            out.write(rows.transpose(2, 0, 1), window=((top, top + len(rows)), (0, side)))


def main() -> None:
    """Measure and write ``results/large_image.json``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--formats", nargs="+", choices=["tif", "gpkg"], default=["tif"])
    parser.add_argument("--out", type=Path, help="folder of the report")
    args = parser.parse_args()
    report: dict[str, Any] = {"model": "mini", "classes": CLASSES, "side": args.side, "tile": args.tile}
    report |= {"overlap": args.overlap, "device": args.device, "runs": {}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.tif"
        write_mosaic(path, args.side)
        report["file_bytes"] = path.stat().st_size
        for name in args.formats:
            out = Path(folder) / f"out.{name}"
            values = json.dumps([str(path), str(out), args.tile, args.overlap, args.device, CLASSES])
            done = subprocess.run([sys.executable, "-c", _CHILD, values], stdout=subprocess.PIPE, text=True, check=True)
            report["runs"][name] = run = {**json.loads(done.stdout), "out_bytes": out.stat().st_size}
            print(f"{name}: {run['tiles']} tiles in {run['seconds']:.1f} s, peak {run['peak_memory'] / 2**20:.0f} MiB")
    print(f"wrote {write_report('large_image', report, args.out)}")


if __name__ == "__main__":
    main()
