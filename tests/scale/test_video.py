"""Videos: every n-th frame, upright, and the overlays as a video again."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_runs import CLASSES, by_input, content, records
from PIL import Image

from cliper.errors import InputError, MissingExtraError
from cliper.formats import draw_overlay, read_label_png
from cliper.scale.sources import find_source
from cliper.scale.videos import VideoSource

av = pytest.importorskip("av")

Draw = Callable[..., Image.Image]


def film(path: Path, frames: list[Image.Image], rate: Fraction = Fraction(10)) -> Path:
    """A video that keeps every pixel nearly as it is."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "1"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode(None))
    return path


def flat(count: int) -> list[Image.Image]:
    """Frames that differ in their grey."""
    return [Image.new("RGB", (64, 48), (20 * number,) * 3) for number in range(count)]


def turn(path: Path, matrix: tuple[int, ...]) -> Path:
    """Set the matrix that says how an mp4 is to be shown, as phones do."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44  # behind version, times, id, duration, layer, group and volume
    assert struct.unpack(">9i", data[place : place + 36])[0] == 1 << 16
    data[place : place + 36] = struct.pack(">9i", *matrix, 1 << 30)
    path.write_bytes(data)
    return path


def test_every_nth_frame(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", flat(10))
    for every, wanted in ((1, range(10)), (3, [0, 3, 6, 9]), (20, [0])):
        source = find_source(str(path), every=every)
        assert isinstance(source, VideoSource)
        assert source.rate == Fraction(10, every)
        items = list(source.items())
        assert [item.name for item in items] == [f"frame-{index:08d}.png" for index in wanted]
        assert [item.number for item in items] == list(range(1, len(items) + 1))
        assert source.count() == len(items)
        for item, index in zip(items, wanted, strict=True):
            # H.264 stores colours as brightness and two differences, with 219 steps for 255.
            assert np.abs(np.asarray(item.read()).astype(int) - 20 * index).max() <= 3


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0), (0, -1)),  # a quarter turn clockwise
        ((-(1 << 16), 0, 0, 0, -(1 << 16), 0, 64 << 16, 48 << 16), (-1, -1)),  # upside down
    ],
)
def test_frames_are_upright(tmp_path: Path, matrix: tuple[int, ...], corner: tuple[int, int]) -> None:
    picture = Image.new("RGB", (64, 48), "black")
    picture.paste("white", (0, 0, 16, 16))  # top left, before the turn
    path = turn(film(tmp_path / "a.mp4", [picture] * 3), matrix)
    shown = np.asarray(next(find_source(str(path)).items()).read())
    assert shown.shape[:2] == ((64, 48) if matrix[0] == 0 else (48, 64))
    assert shown[corner].min() > 200
    assert sum(shown[y, x].min() > 200 for y in (0, -1) for x in (0, -1)) == 1


def test_what_is_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "a.mp4", flat(3))
    with pytest.raises(InputError, match="--every: expected at least 1"):
        find_source(str(path), every=0)
    with pytest.raises(InputError, match="--glob: it is for folders"):
        find_source(str(path), glob=["*.png"])
    (tmp_path / "b.mp4").write_text("no video")
    with pytest.raises(InputError, match="expected a video, could not read"):
        find_source(str(tmp_path / "b.mp4"))
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
    with pytest.raises(InputError, match="a file without pictures"):
        find_source(str(tmp_path / "sound.mkv"))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match="pip install 'cliper"):
        find_source(str(path))


def test_a_video_as_a_person_segments_it(
    command: Any, own_tiny: Any, clip_folder: Path, tmp_path: Path, make_picture: Draw
) -> None:
    path = film(tmp_path / "a.mp4", [make_picture(65, 48, seed=number) for number in range(8)])
    arguments = ["batch", path, "-c", CLASSES, "-m", clip_folder, "-f", "coco", "--every", 2, "--overlay-video"]
    out = tmp_path / "out"
    ended = command(*arguments, "-o", out)
    assert (ended.code, ended.err) == (0, "")
    assert [line["input"] for line in records(out)] == [f"frame-{index:08d}.png" for index in (0, 2, 4, 6)]
    frames = {item.name: item.read() for item in find_source(str(path), every=2).items()}
    for name, line in by_input(out).items():
        assert line["outputs"] == [name.replace(".png", ".coco.json"), name.replace(".png", ".labels.png")]
        assert np.array_equal(read_label_png(out / line["outputs"][1]), own_tiny(frames[name], CLASSES).labels)
    with av.open(str(out / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (66, 48)  # H.264 wants even sides
        assert stream.average_rate == 5
        shown = [np.asarray(frame.to_image())[:, :65] for frame in container.decode(stream)]
    assert len(shown) == 4
    for (name, frame), seen in zip(frames.items(), shown, strict=True):
        labels = read_label_png(out / name.replace(".png", ".labels.png"))
        expected = np.asarray(draw_overlay(frame, labels, ("dog", "green grass", "person"), legend=False))
        # Lossy, with colours at half the resolution: nearer to its own overlay than to the frame without.
        distance = np.abs(seen.astype(int) - expected).mean()
        assert distance < 12
        assert not labels.any() or distance < np.abs(seen.astype(int) - np.asarray(frame)).mean()
    before = content(out)
    (out / "frame-00000004.labels.png").unlink()
    (out / "overlay.mp4").unlink()
    assert command(*arguments, "-o", out, "--resume").code == 0
    assert content(out) == before


def test_a_video_that_is_cut_off(command: Any, clip_folder: Path, tmp_path: Path, make_picture: Draw) -> None:
    path = film(tmp_path / "a.mkv", [make_picture(64, 48, seed=number) for number in range(30)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    ended = command("batch", path, "-c", "dog", "-m", clip_folder, "-f", "labels", "-o", tmp_path / "out")
    # The container has no length that would tell; what is there is done.
    assert ended.code in (0, 2)
    assert 0 < len(records(tmp_path / "out")) < 30
