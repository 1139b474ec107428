"""``cliper benchmarks``."""

from __future__ import annotations

import json
from typing import Any

from cliper.settings import presets


def test_benchmarks_are_listed(command: Any) -> None:
    ended = command("benchmarks")
    assert ended.code == 0
    rows = {cells[0]: cells[1:] for cells in map(str.split, ended.out.splitlines())}
    assert rows["vit-l-14/voc21"] == ["ViT-L/14", "sd2.1", "71.6", "62.5"]
    assert rows["vit-l-14/voc21-preprint"] == ["ViT-L/14", "sd2.1", "70.2", "70.158"]
    assert rows["vit-h-14/voc21-windows"] == ["ViT-H/14", "sd2.1"]
    lines = [json.loads(line) for line in command("benchmarks", "--json").out.splitlines()]
    published = {line["name"]: line["published"] for line in lines}
    assert sorted(published) == presets()
    assert published["vit-l-14/voc21-preprint"] == {"miou": 70.2, "miou_logged": 70.158}
