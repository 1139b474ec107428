"""The package ``ultralytics``, in an environment of its own: the recipe of ``docs/training.md``."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-ultralytics" / "bin" / "python"
READER = Path(__file__).with_name("ultralytics_reader.py")


def recipe() -> tuple[list[str], str]:
    """The words of the command, and the Python code, of the page; with fewer epochs, and a smaller size."""
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").partition("## Other trainers")[0]
    (command,) = re.findall(r"```sh\n\s*(.*?)\n\s*```", page, re.DOTALL)
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = textwrap.dedent(block).replace("epochs=100", "epochs=15").replace("imgsz=640", "imgsz=96")
    assert "epochs=15" in code
    assert "imgsz=96," in code
    return shlex.split(command), code


@pytest.mark.full
def test_recipe_labels_and_trains(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not PYTHON.is_file():
        pytest.skip("needs the package ultralytics; make .venv-ultralytics")
    with Image.open(ROOT / "src" / "cliper" / "assets" / "horses.jpg") as photo:
        width, height = photo.size
        for number, (y, x) in enumerate(itertools.product(range(2), range(3))):
            image = tmp_path / "photos" / ("val" if number > 3 else "train") / f"{number}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            left, top = x * width // 4, y * height // 3
            photo.crop((left, top, left + width // 2, top + height * 2 // 3)).resize((192, 168)).save(image)
    monkeypatch.chdir(tmp_path)
    words, code = recipe()
    assert command(*words[1:]).code == 0
    # By default it writes into the repository that its own environment lies in.
    code = code.replace("workers=0)", f"workers=0, project={str(tmp_path)!r})")
    (tmp_path / "code.py").write_text(code, encoding="utf-8")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "YOLO_CONFIG_DIR": str(tmp_path),
        **dict.fromkeys(("YOLO_OFFLINE", "OMP_NUM_THREADS"), "1"),
    }
    done = subprocess.run(
        [PYTHON, READER], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "masks.npz") as masks:
        expected = {f"images/train/{n}.png" for n in range(4)} | {f"images/val/{n}.png" for n in (4, 5)}
        assert set(masks) == expected
        found: set[int] = set()
        for name, mask in masks.items():
            with Image.open(tmp_path / "data" / name.replace("images", "masks", 1)) as written:
                np.testing.assert_array_equal(mask, np.asarray(written))
            found |= set(np.unique(mask).tolist())
        assert {1, 3} <= found  # the example has horses and grass, and no dog
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["names"] == ["background", "horse", "dog", "grass"]
    assert np.mean(result["losses"][-3:]) < 0.95 * np.mean(result["losses"][:3]), result["losses"]
    assert result["shape"] == [168, 192]
