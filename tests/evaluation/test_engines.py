"""Every engine gives the same matrix; TF32 is off while it computes, unless it is allowed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cliper.evaluation.task import EvaluationTask, SampleSource, Variant
from cliper.model_config import ModelConfig
from cliper.runner.engines import processes_engine, ray_engine, threads_engine
from cliper.runner.run import RunOptions, run_task
from dataset_trees import build_tree
from dataset_trees.own import own_arguments, own_data, report_of
from runs import Draw

OFF, DEFAULT = [False, False], [True, False]


@pytest.mark.full
@pytest.mark.parametrize("flags", [("--workers", 2), ("--engine", "ray", "--workers", 2)], ids=["processes", "ray"])
def test_matrix_is_that_of_threads(
    command: Any, clip_folder: Path, tmp_path: Path, make_image: Draw, flags: tuple[object, ...]
) -> None:
    if "ray" in flags:
        pytest.importorskip("ray")
    own_data(tmp_path, 20, make_image)
    bad = tmp_path / "images" / "b" / "003.jpg"
    bad.write_bytes(b"no image")
    arguments = own_arguments(tmp_path, clip_folder)
    assert command(*arguments, "--on-error", "skip", "-o", tmp_path / "threads").code == 1
    assert command(*arguments, "--on-error", "skip", "-o", tmp_path / "other", *flags).code == 1
    expected, found = report_of(tmp_path / "threads"), report_of(tmp_path / "other")
    assert found["matrix"] == expected["matrix"]
    assert (found["images"], found["skipped"]) == (19, 1)
    assert found["skipped_images"] == expected["skipped_images"]
    # An image that ends the run ends it with its line; what was done is kept.
    stopped = command(*arguments, "-o", tmp_path / "stopped", *flags)
    assert (stopped.code, stopped.err.count("\n")) == (2, 1)
    assert str(bad) in stopped.err
    own_data(tmp_path, 20, make_image)
    assert command(*arguments, "-o", tmp_path / "stopped", "--resume").code == 0
    assert report_of(tmp_path / "stopped")["images"] == 20


def uses_tf32() -> list[bool]:
    """Whether a GPU may use TF32 for convolutions, and for matrix products; PyTorch says so without a GPU, too."""
    return [o.fp32_precision == "tf32" for o in (torch.backends.cudnn.conv, torch.backends.cuda.matmul)]


class RecordingTask(EvaluationTask):
    """Writes the setting at each call of the encoder, into a file for each process."""

    @contextlib.contextmanager
    def load(self, device: str | None = None) -> Iterator[Any]:
        with super().load(device) as segmenters:
            encoder: Any = next(iter(segmenters.values())).encoder
            encode, file = encoder.encode_images, self.folders["root"] / f"tf32-{os.getpid()}"

            def recording(*arguments: Any, **options: Any) -> Any:
                with file.open("a") as stream:
                    stream.write(json.dumps(uses_tf32()) + "\n")
                return encode(*arguments, **options)

            encoder.encode_images = recording
            yield segmenters


class Silent(contextlib.nullcontext[Any]):
    def on_record(self, record: Any, new: bool) -> None:
        pass


@pytest.mark.parametrize(
    ("engine", "allow"),
    [
        ("threads", False),
        ("threads", True),
        pytest.param("processes", False, marks=pytest.mark.full),
        pytest.param("ray", False, marks=pytest.mark.full),
    ],
)
def test_tf32_is_off_unless_it_is_allowed(
    clip_folder: Path, own_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, allow: bool
) -> None:
    build_tree("voc21", tmp_path)
    variant = Variant("", ModelConfig(str(clip_folder), own_tiny.settings, device="cpu"))
    task = replace(RecordingTask("voc21", {"root": tmp_path}, (variant,)), allow_tf32=allow)
    # The workers import the task's module.
    folders = [*map(str, list(Path(__file__).parents)[:2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))
    if engine == "ray":
        pytest.importorskip("ray")
        chosen = ray_engine(task, workers=1, threads=1, address=None, cpu_only=True)
    elif engine == "processes":
        chosen = processes_engine(task, workers=2, threads=1, device="cpu")
    else:
        chosen = threads_engine(task, threads=1)
    source = SampleSource("", task.samples())
    run_task(task, source, str(tmp_path / "out"), {}, chosen, Silent(), lambda run: ([], {}), RunOptions())
    files = list(tmp_path.glob("tf32-*"))
    assert (f"tf32-{os.getpid()}" in [file.name for file in files]) is (engine == "threads")
    lines = [json.loads(line) for line in itertools.chain(*(file.read_text().splitlines() for file in files))]
    assert lines == [DEFAULT if allow else OFF] * 3
    assert uses_tf32() == DEFAULT
