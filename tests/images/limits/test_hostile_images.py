"""Hostile files are refused or decoded at low cost. One process with resource limits decodes all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostile_images import FILES

PARTS = "parts (segments, blocks, boxes, tags) to check"
# Part of the error message; the other files are decoded.
REFUSED = {
    "entries_2000.tif": "32 MiB of tags",
    "entries_60000.tif": "4,096 tags in a directory",
    "exif.jpg": "32 MiB of tags",
    "comment_1mb.gif": "bytes of comments",
    "comment_4mb.gif": "bytes of comments",
    "comment_16mb.gif": "bytes of comments",
    "scans_1000.jpg": "JPEG scans",
    "scans_30000.jpg": "JPEG scans",
    "big_entries.tif": "32 MiB of tags",
    "exif_entries.tif": "32 MiB of tags",
    "gps_fractions.tif": "numbers in its tags",
    "values.tif": "numbers in its tags",
    "strips.tif": "numbers in its tags",
    "strips_of_rows.tif": "strips or tiles",
    "empty_entries.tif": "4,096 tags in a directory",
    "tile.tif": "4 times its pixels",
    "scans.tif": "JPEG scans",
    "scans_restart.jpg": "JPEG scans",
    "scans_tiny.jpg": "JPEG scans",
    "scans_arithmetic.jpg": "JPEG scans",
    "comments.jpg": PARTS,
    "exif_parts.jpg": "JPEG segments of EXIF",
    "exif_names.jpg": "16 times the name of its EXIF",
    "photoshop.jpg": "Photoshop's resources",
    "mpf.jpg": "32 MiB of tags",
    "mpo_scans.jpg": "JPEG scans",
    "chunks.png": "PNG chunks",
    "texts_plain.png": "PNG chunks",
    "idats.png": PARTS,
    "profiles.png": "32 MiB of metadata",
    "texts.png": "32 MiB of metadata",
    "chromaticity.png": "PNG chunk cHRM",
    "frame.png": "128 megapixels",
    "comments.gif": PARTS,
    "extensions.gif": PARTS,
    "blocks.gif": PARTS,
    "canvas.webp": "128 megapixels",
    "junk.jpg": "got something else",
    "lie.avif": "AV1 frames",
    "tiles.j2k": "JPEG 2000 tiles",
    "components.jp2": "4 components",
    "precincts.j2k": "code blocks and precincts",
    "layers.j2k": "JPEG 2000 packets",
    "blocks.j2k": "code blocks and precincts",
    "markers.j2k": PARTS,
    "boxes.jp2": PARTS,
    "rle_delta.bmp": "run-length coded BMP",
    "rle_line.bmp": "run-length coded BMP",
    "comments.ppm": "64 comments",
    "blanks.ppm": "PPM header",
    "header_comment.ppm": "PPM header",
    "plain.ppm": "samples in a PPM",
    "maxval.ppm": "samples in a PPM",
    "repeated_strips.tif": "2 offset(s) of strips or tiles",
    "repeated_tiles.tif": "2 offset(s) of strips or tiles",
    "tile_twice.tif": "a tag twice",
    "scans_signed.tif": "JPEG scans",
    "scans_bytes.tif": "JPEG scans",
    "markers.tif": PARTS,
    "markers.jpg": PARTS,
    "tables.jpg": PARTS,
    "mpf_entries.jpg": PARTS,
    "units.avif": PARTS,
    "levels.j2k": PARTS,
    "levels_component.j2k": PARTS,
}
# Processor time, which does not depend on other work on the machine, and memory.
SECONDS, BYTES = 1.0, 300_000_000

# Limited to 60 seconds and 4 GB of address space, so that a regression does not exhaust the machine.
DECODE = """
import json, resource, sys, time
from pathlib import Path
from cliper.errors import CliperError
from cliper.images import load_image

def status(field):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024

resource.setrlimit(resource.RLIMIT_AS, (4_000_000_000, 4_000_000_000))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
for path in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, started = status("VmRSS"), time.process_time()
    try:
        words = f"decoded {load_image(path).size}"
    except CliperError as error:
        words = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - started
    print(json.dumps({"seconds": seconds, "bytes": status("VmHWM") - before, "words": words}), flush=True)
"""


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is read from Linux's /proc")
    folder = tmp_path_factory.mktemp("hostile")
    for name, make in FILES.items():
        (folder / name).write_bytes(make())
    command = [sys.executable, "-W", "ignore", "-c", DECODE, *(str(folder / name) for name in FILES)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    yield dict(zip(FILES, map(json.loads, done.stdout.splitlines()), strict=False))
    for name in FILES:
        (folder / name).unlink()


@pytest.mark.parametrize("name", FILES)
def test_cost_of_hostile_file_is_bounded(costs: dict[str, Any], name: str) -> None:
    assert name in costs, "the process died at this file or an earlier one"
    cost = costs[name]
    assert cost["seconds"] < SECONDS, cost
    assert cost["bytes"] < BYTES, cost
    if name in REFUSED:
        assert cost["words"].startswith(("ImageError: expected", "ImageSizeError: expected")), cost
        assert REFUSED[name] in cost["words"], cost
        assert "\n" not in cost["words"]
    else:
        assert cost["words"].startswith("decoded"), cost
