"""``labels.js`` gives the labels of ``cliper.ops.labels``, ``legend.js`` the reasons of a result; run in node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cliper.server
from cliper.formats.json_result import encode_maps
from cliper.ops.labels import assign_labels, class_confidence
from cliper.result import why_absent
from cliper.settings import Settings

NODE = shutil.which("node")
STATIC = Path(cliper.server.__file__).parent / "static"

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")

RUN = """
import { LabelMaps, decodeStack, moveThreshold } from "%s/labels.js";
import { reason } from "%s/legend.js";
import { readFileSync } from "node:fs";
const asked = JSON.parse(readFileSync(0, "utf8"));
if (asked.sensitivities) {
  console.log(JSON.stringify(asked.sensitivities.map(([t, s]) => moveThreshold(t, s))));
} else if (asked.reasons) {
  console.log(JSON.stringify(asked.reasons.map((values) => reason(...values))));
} else {
  const stack = decodeStack(asked.stack);
  const maps = new LabelMaps(stack, asked.confidence, asked.width, asked.height, asked.normalize);
  const steps = asked.thresholds.map(([score, background]) => [...maps.update(score, background)]);
  console.log(JSON.stringify(steps));
}
"""


def run(asked: dict[str, Any]) -> Any:
    code = RUN.replace("%s", STATIC.as_uri())
    command = [str(NODE), "--input-type=module", "--eval", code]
    ended = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


# Classes go off and come back: labels are updated, not computed anew.
THRESHOLDS = [(0.5, 0.4), (0.7, 0.4), (0.2, 0.6), (0.75, 0.0), (0.0, 0.3), (1.0, 0.5), (0.5, 0.4)]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("shape", [((24, 32), (130, 171)), ((64, 64), (64, 64)), ((9, 5), (3, 2))])
def test_labels_are_those_of_python(normalize: bool, shape: tuple[tuple[int, int], tuple[int, int]]) -> None:
    (height, width), size = shape
    generator = torch.Generator().manual_seed(height)
    refined = torch.rand(6, height, width, generator=generator)
    refined *= torch.linspace(0.4, 1.0, 6)[:, None, None]
    refined[refined < 0.2] = 0  # as thresholded maps are
    refined[5] = refined[4]  # a tie: the first class wins
    maps = torch.rand(6, 7, 7, generator=generator)
    maps[5] = maps[4]
    asked = {
        "stack": encode_maps(refined.numpy()),
        "confidence": class_confidence(refined, maps).tolist(),
        "height": size[0],
        "width": size[1],
        "normalize": normalize,
        "thresholds": THRESHOLDS,
    }
    for (score, background), found in zip(THRESHOLDS, run(asked), strict=True):
        expected = assign_labels(
            refined, maps, size, score_threshold=score, background_threshold=background, normalize=normalize
        )
        equal = (np.array(found).reshape(size) == expected.numpy()).mean()
        # 16 bit and double arithmetic can only change pixels in which two values are equal to 1e-5.
        assert equal >= 0.999 or np.sum(np.array(found).reshape(size) != expected.numpy()) <= 1


def test_sensitivity_moves_thresholds() -> None:
    pairs = [(0.6, 0.5), (0.6, 0.0), (0.6, 1.0), (0.6, 0.25), (0.6, 0.75), (0.0, 0.2)]
    assert run({"sensitivities": pairs}) == pytest.approx([0.6, 1.0, 0.001, 0.8, 0.3, 0.0])


def test_reasons_are_those_of_python() -> None:
    pairs = [(confidence, threshold) for confidence in (0.01, 0.07, 0.52, 0.66, 0.8) for threshold in (0.65, 0.75)]
    expected = [why_absent(confidence, Settings(score_threshold=threshold)) for confidence, threshold in pairs]
    assert run({"reasons": [(confidence, 0, threshold, threshold) for confidence, threshold in pairs]}) == expected
    assert [r[-16:] for r in run({"reasons": [(0.8, 0.1, 0.65, 0.65), (0, 0, 0, 0.65)]})] == ["", "class_min_score)"]
