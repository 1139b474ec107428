"""Models of transformers with all their weights, or one line that says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, CLIPModel

from cliper.errors import CheckpointError, ResourceError
from cliper.pretrained import load_model, load_pretrained

WEIGHT = "visual_projection.weight"


def change(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a folder's weights."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(CLIPModel, folder, torch.float32)
    message = str(caught.value)
    assert message.startswith(f"{folder}: ")
    assert "\n" not in message
    return message


def test_model_has_the_weights_and_is_ready_for_inference(clip_folder: Path) -> None:
    model = load_pretrained(CLIPModel, clip_folder, torch.float64)
    stored = load_file(clip_folder / "model.safetensors")
    assert torch.equal(model.visual_projection.weight, stored[WEIGHT].double())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_missing_weight_is_named(own_clip: Path) -> None:
    change(own_clip, lambda tensors: tensors.pop(WEIGHT))
    assert f"1 tensor is missing: {WEIGHT}; download" in refusal(own_clip)


def test_weight_of_another_shape_is_named(own_clip: Path) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors[WEIGHT] = torch.zeros(3, 4)
        del tensors["logit_scale"]

    change(own_clip, edit)
    assert f"{WEIGHT}: expected shape [" in refusal(own_clip)
    assert "got [3, 4] (problem 1 of 2); download" in refusal(own_clip)


def test_weights_that_the_model_does_not_have_are_ignored(own_clip: Path) -> None:
    change(own_clip, lambda tensors: tensors.update(something=torch.zeros(1)))
    assert load_model(CLIPModel, own_clip)[1] == []


def test_dino_needs_no_pooler(dino_folder: Path) -> None:
    assert not any("pooler" in name for name in load_file(dino_folder / "model.safetensors"))
    assert load_model(AutoModel, dino_folder)[1] == []


def test_nothing_is_allocated_for_weights_that_the_files_cannot_hold(own_clip: Path) -> None:
    """100 layers of width 65,536 in float32 are 10 TB; the check builds the model without memory."""
    path = own_clip / "config.json"
    config = json.loads(path.read_text())
    config["text_config"] |= {"num_hidden_layers": 100, "hidden_size": 65_536, "intermediate_size": 65_536}
    path.write_text(json.dumps(config))
    assert "config.json describes 2,578,101,291,489 weights, the files have" in refusal(own_clip)


def test_running_out_of_memory_is_not_a_damaged_checkpoint(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(CLIPModel, "from_pretrained", fail)
    with pytest.raises(ResourceError, match="loading"):
        load_pretrained(CLIPModel, clip_folder, torch.float32)
