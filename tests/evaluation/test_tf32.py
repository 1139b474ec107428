"""TF32 is off while an evaluation computes, in every engine, unless it is allowed; the report says which."""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from recording_task import RecordingTask, recorded, uses_tf32

from cliper.evaluation.report import make_report
from cliper.evaluation.task import EvaluationTask, SampleSource, Variant
from cliper.runner.engines import processes_engine, ray_engine, threads_engine
from cliper.runner.run import Engine, Run, RunOptions, run_task
from dataset_trees import build_tree
from dataset_trees.own import own_arguments, own_data, report_of

OFF, DEFAULT = [False, False], [True, False]


@pytest.fixture
def task(clip_folder: Path, own_tiny: Any, tmp_path: Path) -> RecordingTask:
    build_tree("voc21", tmp_path)
    return RecordingTask("voc21", tmp_path, str(clip_folder), (Variant("", own_tiny.settings),), device="cpu")


class Silent(contextlib.nullcontext[Any]):
    def on_record(self, record: Any, new: bool) -> None:
        pass


def run(task: EvaluationTask, folder: Path, engine: Engine) -> dict[str, Any]:
    samples = task.samples()
    config = task.config(samples)
    report: dict[str, Any] = {}

    def finish(run: Run) -> Any:
        records = [record for _, record in run.manifest.records()]
        report.update(make_report(task, config, records, run.stats, run.counts.done))
        return [], {}

    run_task(task, SampleSource("", samples), str(folder), config, engine, Silent(), finish, RunOptions())
    return report


@pytest.mark.parametrize(("allow", "expected"), [(False, OFF), (True, DEFAULT)])
def test_in_this_process_and_restored_afterwards(
    task: RecordingTask, tmp_path: Path, allow: bool, expected: list[bool]
) -> None:
    task = replace(task, allow_tf32=allow)
    report = run(task, tmp_path / "out", threads_engine(task, threads=1))
    assert recorded(tmp_path) == {os.getpid(): [expected] * 3}
    assert report["allow_tf32"] is allow
    assert uses_tf32() == DEFAULT


def test_in_worker_processes(task: RecordingTask, tmp_path: Path) -> None:
    run(task, tmp_path / "out", processes_engine(task, workers=2, threads=1, device="cpu"))
    found = recorded(tmp_path)
    assert len(found) in (1, 2)  # one may be fast enough for all three images
    assert os.getpid() not in found
    assert list(itertools.chain(*found.values())) == [OFF] * 3


@pytest.mark.full
def test_in_ray_workers(task: RecordingTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    # The workers import the task's module.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    run(task, tmp_path / "out", ray_engine(task, workers=1, threads=1, address=None, cpu_only=True))
    found = recorded(tmp_path)
    assert os.getpid() not in found
    assert list(itertools.chain(*found.values())) == [OFF] * 3


def test_the_flag_reaches_the_report(command: Any, clip_folder: Path, tmp_path: Path, make_image: Any) -> None:
    own_data(tmp_path, 2, make_image)
    for flags, allowed in (((), False), (("--allow-tf32",), True)):
        out = tmp_path / f"out-{allowed}"
        assert command(*own_arguments(tmp_path, clip_folder), "-o", out, *flags).code == 0
        assert report_of(out)["allow_tf32"] is allowed


def test_a_run_does_not_go_on_with_another_precision(
    command: Any, clip_folder: Path, tmp_path: Path, make_image: Any
) -> None:
    own_data(tmp_path, 2, make_image)
    arguments = (*own_arguments(tmp_path, clip_folder), "-o", tmp_path / "out")
    assert command(*arguments).code == 0
    ended = command(*arguments, "--allow-tf32", "--resume")
    assert ended.code == 2
    assert "allow_tf32" in ended.err
