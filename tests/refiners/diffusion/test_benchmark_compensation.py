"""The benchmark runs, and its implementations agree."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.full
def test_quick_benchmark(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    script = ROOT / "benchmarks" / "compensation.py"
    command = [sys.executable, script, "--quick", "--models", "sd2.1", "--repeats", "1", "--threads", "1", "--out", out]
    command += ["--baseline", ROOT / "src", "--skip", "torch_compile"]  # which compiles for minutes
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=os.environ | {"CLIPER_CACHE": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "published" in done.stdout
    report = json.loads(out.read_text())
    result = report["models"]["sd2.1"]
    # The maps of random weights are nearly flat: no value is near the threshold.
    assert result["largest_difference"]["ours"] < 1e-5
    assert set(result["ours"]["seconds"]) == {"vae", "unet", "chain", "chain from maps", "total"}
    assert result["operations_1e9"]["chain"]["matmul"] > 0
    assert report["provenance"]["machine"]["torch_threads"] == 1
    assert "torch_compile" not in result
    for way in ("ours", "baseline"):
        error = result[way]["error"]
        assert set(error) == {"attention_maps", "refined_maps"}
        # Issue: at most twice plain float32's; three here, for few values of few channels on one thread.
        assert all(0 < error[name]["median_ratio"] < 3 for name in error)
    assert "seconds" in result["openvino"] or result["openvino"]["reason"]
