"""What visitors and callers are told a model is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from cliper.web.names import public_name


@pytest.mark.parametrize("name", ["mini", "ViT-B/16", "vit-b/16", "openai/clip-vit-base-patch16", "self"])
def test_aliases_and_hub_names_stay(name: str) -> None:
    assert public_name(name) == name


def test_folders_are_nobodys_business(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret" / "mine").mkdir(parents=True)
    (tmp_path / "ViT-B" / "16").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (
        str(tmp_path / "secret/mine"),
        "secret/mine",
        "./secret/mine",
        "secret/../secret/mine/",
        "~/secret/mine",
    ):
        assert public_name(name) == "mine"
    assert public_name(str(tmp_path / "no longer there")) == "no longer there"
    assert public_name("ViT-B/16") == "ViT-B/16"  # an alias goes before a folder of its name
    monkeypatch.chdir(tmp_path / "secret" / "mine")
    assert public_name(".") == "mine"
