"""Scripts that run with the packages of the integrations, which are in an environment of their own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-integrations" / "bin" / "python"


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., Any]:
    """Run a script of this folder with arguments, in an empty home folder; the JSON that it prints last."""
    if not PYTHON.is_file():
        pytest.skip("needs cvat-sdk, datasets, fiftyone and gradio; make .venv-integrations")

    def run(name: str, *arguments: object) -> Any:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT / "src"),
            "CLIPER_CACHE": str(tmp_path / "cache"),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "GRADIO_ANALYTICS_ENABLED": "False",
            "FIFTYONE_DO_NOT_TRACK": "true",
        }
        done = subprocess.run(
            [PYTHON, Path(__file__).with_name(name), *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run
