"""Model folders that would block, exhaust memory or run code: each is refused at once with one line."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

# A blocked command would wait for ever; importing transformers on a busy machine takes up to 20 s.
LIMIT = 120


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    def fail(*_: object) -> None:
        raise AssertionError(f"it took more than {LIMIT} seconds")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["segment", "verify"])
def refusal(
    request: pytest.FixtureRequest, command: Callable[..., Any], photo: Path, tmp_path: Path
) -> Callable[[Path], str]:
    """What a command says of a model folder: one line, or for `verify` a line for each problem."""

    def use(folder: Path) -> str:
        if request.param == "segment":
            ended = command("segment", photo, "-c", "dog", "-m", folder, "-o", tmp_path / "out")
            assert ended.err.count("\n") == 1
        else:
            ended = command("models", "verify", folder)
        assert ended.code == 2
        assert all(line.startswith("cliper: error: ") for line in ended.err.splitlines())
        assert "Traceback" not in ended.err
        text: str = ended.err
        return text

    return use


NAMES = [
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "settings.json",
    "preprocessor_config.json",
    "vocab.json",
    "adapter_config.json",
]


@pytest.mark.parametrize("name", NAMES)
def test_pipe_is_refused(own_clip: Path, refusal: Callable[[Path], str], name: str) -> None:
    (own_clip / name).unlink(missing_ok=True)
    os.mkfifo(own_clip / name)
    assert f"{name}: expected a file, got a pipe, socket or device" in refusal(own_clip)


@pytest.mark.parametrize("kind", ["socket", "device", "link to a pipe"])
def test_other_special_files_are_refused(
    own_clip: Path, refusal: Callable[[Path], str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own_clip / "model.safetensors"
    path.unlink()
    if kind == "socket":
        monkeypatch.chdir(own_clip)  # the address of a socket may have 107 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(own_clip.parent / "pipe")
        path.symlink_to(own_clip.parent / "pipe")
    assert f"{path.name}: expected a file, got a pipe, socket or device" in refusal(own_clip)


@pytest.mark.parametrize("total", ["9999999999", "9" * 100])
def test_enormous_number_of_shards_is_refused(own_clip: Path, refusal: Callable[[Path], str], total: str) -> None:
    (own_clip / "model.safetensors").unlink()
    shard = f"pytorch_model-1-of-{total}.bin"
    (own_clip / shard).touch()
    index = own_clip / "pytorch_model.bin.index.json"
    for text in ("{}", json.dumps({"weight_map": {"a": shard}})):
        index.write_text(text)
        assert "got no complete set of shards for pytorch_model.bin.index.json" in refusal(own_clip)


def test_enormous_configuration_is_refused(own_clip: Path, refusal: Callable[[Path], str]) -> None:
    os.truncate(own_clip / "config.json", 10**12)  # sparse
    assert "expected at most 10,000,000 bytes, got 1,000,000,000,000" in refusal(own_clip)


class Attack:
    """Runs code when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_that_would_run_code_is_refused_without_pytorchs_advice(
    own_clip: Path, refusal: Callable[[Path], str], tmp_path: Path, zipped: bool
) -> None:
    proof = tmp_path / "proof"
    tensors = load_file(own_clip / "model.safetensors")
    (own_clip / "model.safetensors").unlink()
    content = {**tensors, "attack": Attack(proof)}
    torch.save(content, own_clip / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    text = refusal(own_clip)
    assert "the file holds more than tensors and could run code" in text
    assert "weights_only" not in text
    assert not proof.exists()
