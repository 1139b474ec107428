"""Run by ``.venv-ultralytics``: read a data set by Ultralytics' loader, and run the code of ``docs/training.md``.

The current folder has ``data``, ``photos`` and ``code.py``. ``masks.npz`` gets the mask of each image by its name. The
losses of the epochs, the names of classes and the shape of the predicted map are printed as JSON.
"""

from __future__ import annotations

import csv
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

try:
    import torchvision  # noqa: F401
except RuntimeError:  # PyPI's build does not load beside a CPU build of torch; this task uses nothing of it
    sys.modules["torchvision"] = types.ModuleType("torchvision")

from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset

data = check_det_dataset("data/semantic.yaml")
masks = {}
for split in ("train", "val"):
    found = build_yolo_dataset(get_cfg(overrides={"task": "semantic"}), data[split], 1, data, mode="val")
    for index, image in enumerate(found.im_files):
        masks[str(Path(image).relative_to(Path("data").resolve()))] = found.load_mask(index)
np.savez("masks.npz", **masks)

names: dict[str, Any] = {}
exec(Path("code.py").read_text(encoding="utf-8"), names)
with (names["model"].trainer.save_dir / "results.csv").open() as table:
    losses = [float(row["train/ce_loss"]) for row in csv.DictReader(table)]
result = {"losses": losses, "names": list(names["result"].names.values()), "shape": names["labels"].shape}
print(json.dumps(result))
