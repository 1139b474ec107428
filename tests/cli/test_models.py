"""``cliper models``: list, fetch, verify. tests/checkpoints tests the download itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from cliper.checkpoints import entries
from cliper.errors import DownloadError


@pytest.fixture(autouse=True)
def empty_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A hub cache without any checkpoint."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_list_has_every_entry(command: Any) -> None:
    ended = command("models", "list")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].split() == ["name", "model", "source", "size", "licence", "here"]
    assert len(lines) == 1 + len(entries())
    for entry, line in zip(entries(), lines[1:], strict=True):
        assert line.split()[0] == entry.alias
        assert f"{entry.megabytes} MB" in line
        assert entry.licence in line
        assert line.split()[-1] == ("bundled" if entry.bundled else "no")
        if entry.sources:
            assert entry.sources[0].repo in line  # not cut off


def test_list_tells_where_a_checkpoint_is(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import cliper.checkpoints as checkpoints

    resolve = checkpoints.resolve

    def pretend(name: str, kind: str, *, download: bool = True) -> Any:
        assert not download
        if name == "ViT-L/14":
            return type("Found", (), {"source": "hub"})
        return resolve(name, kind, download=False)

    monkeypatch.setattr(checkpoints, "resolve", pretend)
    ends = {line.split()[0]: line.split()[-1] for line in command("models", "list").out.splitlines()}
    assert (ends["ViT-L/14"], ends["ViT-B/16"], ends["mini"]) == ("hub", "no", "bundled")


def test_fetch_of_a_local_checkpoint_prints_its_folder(command: Any, clip_folder: Path) -> None:
    ended = command("models", "fetch", "MINI")
    assert ended.code == 0
    assert ended.out.startswith("mini: ")
    assert Path(ended.out.removeprefix("mini: ").strip()).is_dir()
    ended = command("models", "fetch", clip_folder)
    assert (ended.code, ended.out) == (0, f"{clip_folder}: {clip_folder}\n")


def test_fetch_takes_the_kind_of_the_alias(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def resolve(name: str, kind: str) -> None:
        asked.append((name, kind))
        raise DownloadError("no")

    monkeypatch.setattr("cliper.checkpoints.resolve", resolve)
    for arguments in (["sd2.1"], ["ViT-B/16"], ["dinov2-s14"], ["someone/thing"], ["someone/thing", "--kind", "dino"]):
        assert command("models", "fetch", *arguments).code == 2
    assert [kind for _, kind in asked] == ["diffusion", "clip", "dino", "clip", "dino"]


def test_fetch_without_network_is_one_line(command: Any, empty_hub: Path) -> None:
    """Sockets are blocked in tests."""
    ended = command("models", "fetch", "ViT-B/16")
    assert (ended.code, ended.out) == (2, "")
    line = ended.err.splitlines()[-1]  # pytest-socket warns before it
    assert line.startswith("cliper: error: ViT-B/16: could not download it")
    assert "hf download openai/clip-vit-base-patch16" in line


def test_fetch_of_a_broken_folder_fails(command: Any, own_clip: Path) -> None:
    (own_clip / "model.safetensors").write_bytes(b"")
    ended = command("models", "fetch", own_clip)
    assert ended.code == 2
    assert "the weights cannot be read" in ended.err


def test_verify_of_a_complete_checkpoint(command: Any, clip_folder: Path) -> None:
    for name in ("mini", clip_folder):
        ended = command("models", "verify", name)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith(f"{name}: complete; ")
        assert " tensors in " in ended.out


def test_verify_finds_nan_and_missing_tensors(command: Any, own_clip: Path) -> None:
    tensors = load_file(own_clip / "model.safetensors")
    tensors["visual_projection.weight"][0, 0] = float("nan")
    del tensors["text_model.final_layer_norm.weight"]
    save_file(tensors, own_clip / "model.safetensors", metadata={"format": "pt"})
    ended = command("models", "verify", own_clip)
    assert ended.code == 2
    lines = ended.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"cliper: error: {own_clip}: ") for line in lines)
    assert "visual_projection.weight: has values that are NaN" in ended.err
    assert "text_model.final_layer_norm.weight" in ended.err
    assert f"{own_clip}: 2 problem(s); " in ended.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verify", "ViT-B/16"], "is not on this machine"),
        (["verify", "no-such"], "no checkpoint is called 'no-such'"),
        (["fetch", "no-such"], "no checkpoint is called 'no-such'"),
        (["fetch", "sd2.1", "--kind", "clip"], "expected a CLIP checkpoint"),
        (["fetch", "mini", "--kind", "text"], "--kind"),
    ],
)
def test_unknown_name_or_kind_is_refused(command: Any, arguments: list[str], words: str) -> None:
    ended = command("models", *arguments)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert words in line
