"""``cliper batch --smooth``: labels of a video that do not flicker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.batch.smooth_video import smooth_frame
from cliper.formats import read_label_png
from cliper.runner.sources import find_source
from runs import CLASSES, Draw, content, records

ROOT = Path(__file__).parents[2]


@pytest.fixture
def video(tmp_path: Path, make_image: Draw) -> Path:
    """Eight frames of one scene with the noise of a camera."""
    av = pytest.importorskip("av")
    scene, rng = np.asarray(make_image(64, 48, seed=1)).astype(float), np.random.default_rng(0)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        for _ in range(8):
            noisy = (scene + rng.normal(0, 12, scene.shape)).clip(0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_image(Image.fromarray(noisy))))
        container.mux(stream.encode(None))
    return tmp_path / "a.mp4"


def smoothed(segmenter: Any, video: Path, length: int) -> dict[str, Any]:
    """Label maps of a video's frames by name, one frame after another."""
    state, labels = None, {}
    for item in find_source(str(video)).items():
        image = Image.fromarray(item.data)
        maps = segmenter.predict_maps(segmenter.encode_image(image), CLASSES)
        state, maps = smooth_frame(state, image, maps, length)
        labels[item.name] = segmenter.assign_labels(image, CLASSES, *maps).labels
    return labels


def test_labels_of_a_smoothed_video(batch: Any, own_tiny: Any, video: Path, tmp_path: Path) -> None:
    def run(*flags: object, out: Path = tmp_path / "out") -> Any:
        return batch(video, "-f", "labels", "--threads", 1, *flags, out=out)

    assert run("--smooth", 8).code == 0
    expected = smoothed(own_tiny, video, 8)
    assert [line["input"] for line in records(tmp_path / "out")] == list(expected)
    changed = 0
    for name, labels in expected.items():
        assert np.array_equal(read_label_png(tmp_path / "out" / name.replace(".png", ".labels.png")), labels)
        changed += not np.array_equal(labels, own_tiny(frame_of(video, name), CLASSES).labels)
    assert changed >= 6  # of the seven after the first

    before = content(tmp_path / "out")
    (tmp_path / "out" / "frame-00000004.labels.png").unlink()
    assert run("--smooth", 8, "--resume").code == 0
    assert content(tmp_path / "out") == before
    assert "smooth" in run("--smooth", 4, "--resume").err


def frame_of(video: Path, name: str) -> Image.Image:
    return next(Image.fromarray(item.data) for item in find_source(str(video)).items() if item.name == name)


def test_frame_of_another_size_starts_anew(own_tiny: Any, make_image: Draw) -> None:
    state = None
    for size in ((64, 48), (48, 64), (64, 48)):
        image = make_image(*size)
        maps = own_tiny.predict_maps(own_tiny.encode_image(image), CLASSES)
        state, smooth = smooth_frame(state, image, maps, 8)
        assert np.array_equal(smooth[0], maps[0])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", 2], "--smooth: frames are processed in their order by one worker"),
        (["--threads", 2], "--smooth: frames are processed in their order by one worker"),
        (["--smooth", 1], "1 is not in the range x>=2"),
    ],
)
def test_smoothing_needs_frames_in_order(
    command: Any, clip_folder: Path, video: Path, tmp_path: Path, flags: list[Any], message: str
) -> None:
    arguments = ["batch", video, "-c", CLASSES, "-m", clip_folder, "-o", tmp_path / "out", "--smooth", 8, *flags]
    ended = command(*arguments)
    assert (ended.code, message in ended.err) == (2, True), ended.err
    assert not (tmp_path / "out").exists()


def test_smoothing_is_for_videos(command: Any, clip_folder: Path, photos: Path, tmp_path: Path) -> None:
    ended = command("batch", photos, "-c", CLASSES, "-m", clip_folder, "-o", tmp_path / "out", "--smooth", 8)
    assert (ended.code, "--smooth: expected a video, got a folder" in ended.err) == (2, True)


@pytest.mark.full
def test_labels_flicker_less_and_moving_objects_stay(tmp_path: Path) -> None:
    """The bundled checkpoint on the clip of the benchmark, with ground truth."""
    command = [sys.executable, ROOT / "benchmarks" / "video_smoothing.py", "--frames", 20, "--lengths", 8]
    done = subprocess.run(
        [*map(str, command), "--noise", "6", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "CLIPER_CACHE": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "video_smoothing.json").read_text())["noise"]["6"]
    assert scores["8"]["changed"] < scores["off"]["changed"] / 2
    assert scores["8"]["changed_near"] < scores["off"]["changed_near"]
    assert scores["8"]["miou"] > scores["off"]["miou"] - 0.01
