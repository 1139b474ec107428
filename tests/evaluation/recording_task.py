"""A task that notes whether TF32 is allowed while it computes; worker processes import it from here."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from cliper.evaluation.task import EvaluationTask

__all__ = ["RecordingTask", "recorded", "uses_tf32"]


def uses_tf32() -> list[bool]:
    """Whether a GPU may use TF32 for convolutions, and for matrix products; PyTorch says so without a GPU, too."""
    return [o.fp32_precision == "tf32" for o in (torch.backends.cudnn.conv, torch.backends.cuda.matmul)]


class RecordingTask(EvaluationTask):
    """Notes the setting at each call of the encoder, in a file for each process."""

    @contextlib.contextmanager
    def load(self, device: str | None = None) -> Iterator[Any]:
        with super().load(device) as segmenters:
            self._record(segmenters)
            yield segmenters

    def _record(self, segmenters: Any) -> None:
        encoder: Any = next(iter(segmenters.values())).encoder
        encode = encoder.encode_images

        def recording(*arguments: Any, **options: Any) -> Any:
            with (Path(self.root or "") / f"tf32-{os.getpid()}").open("a") as stream:
                stream.write(json.dumps(uses_tf32()) + "\n")
            return encode(*arguments, **options)

        encoder.encode_images = recording


def recorded(folder: Path) -> dict[int, list[list[bool]]]:
    """What was noted below a folder, by process."""
    files = folder.glob("tf32-*")
    return {int(f.name.partition("-")[2]): [json.loads(line) for line in f.read_text().splitlines()] for f in files}
