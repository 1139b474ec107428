"""TF32 is off while an evaluation computes, in every engine, unless it is allowed; the report says which."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from recording_job import RecordingJob, recorded, uses_tf32

from cliper.evaluation.job import Job, Variant
from cliper.evaluation.report import make_report
from cliper.evaluation.workers import evaluate
from dataset_trees import build_tree
from dataset_trees.own import own_arguments, own_data, report_of

OFF, DEFAULT = [False, False], [True, False]


@pytest.fixture
def job(clip_folder: Path, own_tiny: Any, tmp_path: Path) -> RecordingJob:
    build_tree("voc21", tmp_path)
    return RecordingJob("voc21", tmp_path, str(clip_folder), (Variant("", own_tiny.settings),), device="cpu")


def run(job: Job, folder: Path, **options: Any) -> dict[str, Any]:
    benchmark = job.benchmark()
    samples = job.samples(benchmark)
    identity = job.identity(samples)
    outcome = evaluate(job, samples, folder, identity, seen=lambda record: None, **options)
    return make_report(job, benchmark, identity, outcome)


@pytest.mark.parametrize(("allow", "expected"), [(False, OFF), (True, DEFAULT)])
def test_in_this_process_and_restored_afterwards(
    job: RecordingJob, tmp_path: Path, allow: bool, expected: list[bool]
) -> None:
    report = run(replace(job, allow_tf32=allow), tmp_path / "out")
    assert recorded(tmp_path) == {os.getpid(): [expected] * 3}
    assert report["allow_tf32"] is allow
    assert uses_tf32() == DEFAULT


def test_in_worker_processes(job: RecordingJob, tmp_path: Path) -> None:
    run(job, tmp_path / "out", workers=2)
    found = recorded(tmp_path)
    assert len(found) == 2
    assert os.getpid() not in found
    assert list(itertools.chain(*found.values())) == [OFF] * 3


@pytest.mark.full
def test_in_ray_workers(job: RecordingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    # The workers import the job's module.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    from cliper.scale.ray_evaluate import RayEvaluation

    run(job, tmp_path / "out", spread=RayEvaluation(workers=1))
    found = recorded(tmp_path)
    assert os.getpid() not in found
    assert list(itertools.chain(*found.values())) == [OFF] * 3


def test_the_flag_reaches_the_report(command: Any, clip_folder: Path, tmp_path: Path, make_picture: Any) -> None:
    own_data(tmp_path, 2, make_picture)
    for flags, allowed in (((), False), (("--allow-tf32",), True)):
        out = tmp_path / f"out-{allowed}"
        assert command(*own_arguments(tmp_path, clip_folder), "-o", out, *flags).code == 0
        assert report_of(out)["allow_tf32"] is allowed


def test_a_run_does_not_go_on_with_another_precision(
    command: Any, clip_folder: Path, tmp_path: Path, make_picture: Any
) -> None:
    own_data(tmp_path, 2, make_picture)
    arguments = (*own_arguments(tmp_path, clip_folder), "-o", tmp_path / "out")
    assert command(*arguments).code == 0
    ended = command(*arguments, "--allow-tf32")
    assert ended.code == 2
    assert "allow_tf32" in ended.err
