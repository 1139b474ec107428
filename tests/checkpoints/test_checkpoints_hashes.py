"""Checksums of weights: the bundled ones are the registry's, the hub's are not read."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from cliper.checkpoints import find_entry, resolve, weight_hashes


def test_the_bundled_ones_are_those_of_the_registry() -> None:
    entry = find_entry("mini")
    assert entry is not None
    assert weight_hashes(resolve("mini", "clip")) == {"model.safetensors": entry.sha256["model.safetensors"]}


def test_a_folder_of_ones_own_is_read(own_clip: Path) -> None:
    content = (own_clip / "model.safetensors").read_bytes()
    found = weight_hashes(resolve(own_clip, "clip"))
    assert found == {"model.safetensors": hashlib.sha256(content).hexdigest()}
    (own_clip / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert weight_hashes(resolve(own_clip, "clip")) != found


def test_the_hubs_cache_has_them_as_names(own_clip: Path, tmp_path: Path) -> None:
    blob = tmp_path / ("ab" * 32)
    (own_clip / "model.safetensors").rename(blob)
    (own_clip / "model.safetensors").symlink_to(blob)
    found = replace(resolve(own_clip, "clip"), source="hub")
    assert weight_hashes(found) == {"model.safetensors": "ab" * 32}
