"""Videos: every n-th frame, upright, and the overlays as a video again."""

from __future__ import annotations

import struct
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.errors import InputError, MissingExtraError
from cliper.formats import draw_overlay, read_label_png
from cliper.runner.sources import VideoSource, find_source
from runs import CLASSES, Draw, by_input, content, records

av = pytest.importorskip("av")


def film(path: Path, frames: list[Image.Image], options: dict[str, str] | None = None) -> Path:
    """A video of ten frames a second that keeps every pixel nearly as it is."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
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
            assert np.abs(np.asarray(item.data).astype(int) - 20 * index).max() <= 3


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0), (0, -1)),  # a quarter turn clockwise
        ((-(1 << 16), 0, 0, 0, -(1 << 16), 0, 64 << 16, 48 << 16), (-1, -1)),  # upside down
    ],
)
def test_frames_are_upright(tmp_path: Path, matrix: tuple[int, ...], corner: tuple[int, int]) -> None:
    image = Image.new("RGB", (64, 48), "black")
    image.paste("white", (0, 0, 16, 16))  # top left, before the turn
    path = turn(film(tmp_path / "a.mp4", [image] * 3), matrix)
    shown = np.asarray(next(find_source(str(path)).items()).data)
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
    with pytest.raises(InputError, match="a file without frames"):
        find_source(str(tmp_path / "sound.mkv"))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match="pip install 'cliper"):
        find_source(str(path))


def test_a_video_as_a_person_segments_it(
    command: Any, own_tiny: Any, clip_folder: Path, tmp_path: Path, make_image: Draw
) -> None:
    path = film(tmp_path / "a.mp4", [make_image(65, 48, seed=number) for number in range(8)])
    arguments = ["batch", path, "-c", CLASSES, "-m", clip_folder, "-f", "coco", "--every", 2, "--overlay-video"]
    out = tmp_path / "out"
    ended = command(*arguments, "-o", out)
    assert (ended.code, ended.err) == (0, "")
    assert [line["input"] for line in records(out)] == [f"frame-{index:08d}.png" for index in (0, 2, 4, 6)]
    frames = {item.name: Image.fromarray(item.data) for item in find_source(str(path), every=2).items()}
    for name, line in by_input(out).items():
        assert line["outputs"] == [name.replace(".png", ".coco.json"), name.replace(".png", ".labels.png")]
        assert np.array_equal(read_label_png(out / line["outputs"][1]), own_tiny(frames[name], CLASSES).labels)
    with av.open(str(out / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (66, 48)  # H.264 wants even sides
        assert stream.average_rate == 5
        shown = [np.asarray(frame.to_image())[:, :65] for frame in container.decode(stream)]
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


@pytest.mark.parametrize(
    ("name", "share"),
    [("a.mp4", 2 / 3), ("a.mp4", 0.998), ("a.mkv", 2 / 3), ("a.ts", 2 / 3), ("a.avi", 2 / 3)]
    + [(name, None) for name in ("a.mp4", "a.mkv", "a.avi")],
)
def test_damaged_videos_give_the_frames_before(
    tmp_path: Path, make_image: Draw, name: str, share: float | None
) -> None:
    """They are cut off, or have zeros in the middle."""
    frames = [make_image(64, 48, seed=number) for number in range(60)]
    path = film(tmp_path / name, frames, options={"movflags": "faststart"} if name == "a.mp4" and share else {})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if share is None:
        data[middle : middle + 20_000] = bytes(20_000)
    path.write_bytes(data[: int(len(data) * (share or 1))])
    found = []
    with pytest.raises(InputError, match="expected a whole video, got a damaged one"):
        found.extend(item.number for item in find_source(str(path)).items())
    assert len(found) in ((59,) if share == 0.998 else range(10, 60))


def begun_in_the_middle(path: Path, frames: list[Image.Image]) -> None:
    """Without its first second, but with the frames that later ones need, as cutting without encoding anew does."""
    film(path.with_name("whole.mp4"), frames)
    with av.open(str(path.with_name("whole.mp4"))) as whole, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.pts -= int(1 / packet.time_base)
                packet.dts -= int(1 / packet.time_base)
                packet.stream = stream
                container.mux(packet)


def shown_for_different_times(path: Path, frames: list[Image.Image]) -> None:
    """As a recording of a screen."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, frame in enumerate(map(av.VideoFrame.from_image, frames)):
            frame.pts, frame.time_base = (
                [0, 5000, 5033, 9000, 20_000][number % 5] + number // 5 * 40_000,
                Fraction(1, 1000),
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def without_a_length(path: Path, frames: list[Image.Image]) -> None:
    film(path, frames, options={"live": "1"} if path.suffix == ".mkv" else {})


def with_longer_sound(path: Path, frames: list[Image.Image]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode(None))
        for number in range(150):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate, silence.pts = 16_000, number * 1024
            container.mux(sound.encode(silence))
        container.mux(sound.encode(None))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("make", [begun_in_the_middle, shown_for_different_times, with_longer_sound, without_a_length])
def test_odd_videos_are_whole(tmp_path: Path, make_image: Draw, name: str, make: Any) -> None:
    make(tmp_path / name, [make_image(64, 48, seed=number) for number in range(20)])
    found = len(list(find_source(str(tmp_path / name)).items()))
    assert found == (10 if make is begun_in_the_middle and name == "a.mp4" else 20)
