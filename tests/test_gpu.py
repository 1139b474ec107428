"""Code paths of ``--device cuda`` without a GPU: a fake device, and the benchmark's script."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def test_networks_and_formulas_on_one_device(clip_folder: Path) -> None:
    """In a process of its own, because PyTorch registers the fake device for good."""
    script = Path(__file__).with_name("run_on_fake_gpu.py")
    command = [sys.executable, str(script), str(clip_folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "all on the device"


def test_no_gpu_is_one_line() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = benchmark()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "device: expected one of cpu" in done.stderr


@pytest.mark.full
def test_tiny_benchmark(tmp_path: Path) -> None:
    flags = ["--device", "cpu", "--tiny", "--batches", "1", "2", "--repeats", "2", "--compile-backend", "eager"]
    done = benchmark(*flags, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["weights"]["refiner"] == "random, Stable Diffusion 2.1's shape"
    equal = report["equality_with_cpu"]
    assert equal["without compensation, float32"] == {"largest_map_difference": 0, "equal_labels": 1}
    assert equal["with compensation, bfloat16"]["equal_labels"] > 0.9
    assert not report["skipped"]
    found = {(row["dtype"], row["compensation"], row["compiled"], row["batch"]) for row in report["rows"]}
    assert found == set(itertools.product(("float16", "bfloat16"), (False, True), (False, True), (1, 2)))
    for row in report["rows"]:
        assert row["graphs_while_measured"] == 0, row
        assert (row["graphs"] > 0) == row["compiled"], row
    assert all(row["images_per_second"] > 0 for row in report["rows"])


def benchmark(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ)
