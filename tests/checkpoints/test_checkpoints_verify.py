import hashlib
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cliper.checkpoints import find_entry, resolve, verify_checkpoint, weight_hashes
from cliper.checkpoints.resolve import ResolvedCheckpoint
from cliper.errors import CheckpointError, DownloadError


@pytest.fixture
def change(tiny_clip):
    """Change the tiny CLIP's tensors with a function."""
    path = tiny_clip / "model.safetensors"

    def apply(function):
        tensors = load_file(path)
        function(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return apply


def test_bundled_checkpoint_has_no_problem():
    report = verify_checkpoint("mini")
    assert report.problems == []
    assert report.tensors > 200
    assert "model.safetensors" in report.files


def test_damaged_bundled_checkpoint_fails_its_checksums(monkeypatch, tmp_path):
    mini = resolve("mini", "clip")
    folder = tmp_path / "mini"
    shutil.copytree(mini.folder, folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-2:] = b"\x00\x7e"  # the last half-precision value becomes NaN
    (folder / "model.safetensors").write_bytes(content)
    (folder / "tokenizer.json").unlink()
    damaged = ResolvedCheckpoint("mini", "clip", folder, "bundled", entry=mini.entry)
    monkeypatch.setattr("cliper.checkpoints.verify.resolve", lambda *_, **__: damaged)
    problems = verify_checkpoint("mini").problems
    assert len(problems) == 3
    assert any(line.startswith("model.safetensors: expected sha256 285ae6") for line in problems)
    assert any("NaN or infinite" in line for line in problems)
    assert any("tokenizer.json: expected a file" in line for line in problems)


def test_local_clip_has_no_problem(tiny_clip):
    report = verify_checkpoint(tiny_clip)
    assert report.problems == []
    assert report.tensors == 78
    assert report.folder == tiny_clip


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(tiny_clip, change, value):
    change(lambda tensors: tensors["visual_projection.weight"][3].fill_(value))
    assert verify_checkpoint(tiny_clip, "clip").problems == [
        "visual_projection.weight: has values that are NaN or infinite"
    ]


def test_wrong_names_and_shapes_are_named(tiny_clip, change):
    def damage(tensors):
        del tensors["text_model.embeddings.token_embedding.weight"]
        tensors["visual_projection.weight"] = torch.zeros(16, 8)
        tensors["something"] = torch.zeros(1)
        tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]  # older releases saved it

    change(damage)
    assert verify_checkpoint(tiny_clip).problems == [
        "visual_projection.weight: expected shape [16, 16], got [16, 8]",
        "1 tensor is missing: text_model.embeddings.token_embedding.weight",
    ]


def test_missing_projection_is_named(tiny_clip, change):
    change(lambda tensors: tensors.pop("text_projection.weight"))
    assert verify_checkpoint(tiny_clip).problems == ["1 tensor is missing: text_projection.weight"]


def test_pytorch_weights_are_read_without_running_code(tiny_clip):
    tensors = load_file(tiny_clip / "model.safetensors")
    (tiny_clip / "model.safetensors").unlink()
    for zipped in (True, False):
        torch.save(tensors, tiny_clip / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        assert verify_checkpoint(tiny_clip).problems == []
    torch.save({"a": verify_checkpoint}, tiny_clip / "pytorch_model.bin")  # a pickle that would run code
    assert (
        "pytorch_model.bin: the weights cannot be read: the file holds more than tensors"
        in verify_checkpoint(tiny_clip).problems[0]
    )


def test_shards_are_read(tiny_clip):
    tensors = load_file(tiny_clip / "model.safetensors")
    (tiny_clip / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for shard, part in zip(shards, (names[:40], names[40:]), strict=True):
        save_file({name: tensors[name] for name in part}, tiny_clip / shard)
    weight_map = {name: shards[i >= 40] for i, name in enumerate(names)}
    (tiny_clip / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    report = verify_checkpoint(tiny_clip)
    assert (report.tensors, report.problems) == (78, [])


def test_truncated_weights_and_wrong_folders(tiny_clip, tmp_path):
    path = tiny_clip / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    (problem,) = verify_checkpoint(tiny_clip).problems
    assert "model.safetensors: the weights cannot be read" in problem
    (tiny_clip / "config.json").write_text('{"model_type": "clip", "vision_config": {"hidden_size": "x"}}')
    assert verify_checkpoint(tiny_clip).problems
    (problem,) = verify_checkpoint(tmp_path, "clip").problems
    assert "got no config.json" in problem
    with pytest.raises(CheckpointError, match=r"expected config\.json"):
        verify_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint is called"):
        verify_checkpoint("nothing")


@pytest.mark.parametrize(
    ("vision", "words"),
    [
        ({"num_attention_heads": 7}, "could not read the weights: "),
        # Loading would allocate 200 layers of 69 GB.
        ({"num_hidden_layers": 200, "hidden_size": 65_536, "num_attention_heads": 16}, "weights, the files have"),
    ],
)
def test_configuration_of_another_model_is_named(tiny_clip, vision, words):
    (tiny_clip / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": vision}))
    (problem,) = verify_checkpoint(tiny_clip).problems
    assert words in problem


@pytest.mark.parametrize("family", ["ViT", "Dinov2"])
def test_dino_of_old_and_new_releases(tmp_path, family):
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32}
    config = getattr(transformers, f"{family}Config")(**sizes, intermediate_size=32, patch_size=16)
    getattr(transformers, f"{family}Model")(config).save_pretrained(tmp_path)
    assert verify_checkpoint(tmp_path).problems == []
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    prefix = family.lower()
    # As other releases and other tasks save it: with the base model's prefix, a head, and no pooler.
    renamed = {f"{prefix}.{name}": value for name, value in tensors.items() if "pooler" not in name}
    save_file({**renamed, "classifier.weight": torch.zeros(2, 16)}, path, metadata={"format": "pt"})
    assert verify_checkpoint(tmp_path, "dino").problems == []
    renamed.popitem()
    save_file(renamed, path, metadata={"format": "pt"})
    assert "1 tensor is missing" in verify_checkpoint(tmp_path, "dino").problems[0]


def test_diffusion_of_old_and_new_releases(tiny_pipeline, caplog):
    report = verify_checkpoint(tiny_pipeline)
    assert report.problems == []
    assert "unet/diffusion_pytorch_model.safetensors" in report.files
    path = tiny_pipeline / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    # The names that Stable Diffusion 1's VAE still has on the hub.
    for new, name in old.items():
        tensors = {key.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): v for key, v in tensors.items()}
    assert any(".query." in key for key in tensors)
    save_file(tensors, path)
    assert verify_checkpoint(tiny_pipeline, "diffusion").problems == []
    text = tiny_pipeline / "text_encoder" / "model.safetensors"
    prefixed = {f"text_model.{name}": value for name, value in load_file(text).items()}
    save_file(prefixed, text, metadata={"format": "pt"})
    assert verify_checkpoint(tiny_pipeline, "diffusion").problems == []
    logging.getLogger("diffusers").addHandler(caplog.handler)
    name, _ = tensors.popitem()
    save_file(tensors, path)
    assert verify_checkpoint(tiny_pipeline, "diffusion").problems == [f"vae: 1 tensor is missing: {name}"]
    logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert not caplog.records  # the library's own report is not shown


def test_tiny_vae_is_recognised_by_its_configuration(tmp_path, caplog):
    from diffusers import AutoencoderTiny

    channels = (8, 8, 8, 8)
    AutoencoderTiny(encoder_block_out_channels=channels, decoder_block_out_channels=channels).save_pretrained(tmp_path)
    logging.getLogger("diffusers").addHandler(caplog.handler)
    report = verify_checkpoint(tmp_path)
    logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert (report.problems, report.files[0]) == ([], "config.json")
    assert report.tensors > 100
    assert not caplog.records


def test_hub_checksums_are_compared(hub, tiny_clip):
    content = {name: (tiny_clip / name).read_bytes() for name in ("config.json", "model.safetensors")}
    hub.repos["me/tiny"] = {"a" * 40: content}
    with pytest.raises(DownloadError, match="not on this machine"):
        verify_checkpoint("me/tiny")
    folder = resolve("me/tiny", "clip").folder
    asked = len(hub.asked)
    assert verify_checkpoint("me/tiny").problems == []
    assert len(hub.asked) == asked
    blob = (folder / "config.json").resolve()
    blob.write_bytes(content["config.json"] + b" ")
    (problem,) = verify_checkpoint("me/tiny").problems
    assert problem.startswith("config.json: expected sha256")


def test_weight_hashes_of_the_bundled_checkpoint() -> None:
    entry = find_entry("mini")
    assert entry is not None
    assert weight_hashes(resolve("mini", "clip")) == {"model.safetensors": entry.sha256["model.safetensors"]}


def test_weight_hashes_of_a_local_folder(own_clip: Path) -> None:
    content = (own_clip / "model.safetensors").read_bytes()
    found = weight_hashes(resolve(own_clip, "clip"))
    assert found == {"model.safetensors": hashlib.sha256(content).hexdigest()}
    (own_clip / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert weight_hashes(resolve(own_clip, "clip")) != found


def test_weight_hashes_of_the_hub_cache_are_its_file_names(own_clip: Path, tmp_path: Path) -> None:
    blob = tmp_path / ("ab" * 32)
    (own_clip / "model.safetensors").rename(blob)
    (own_clip / "model.safetensors").symlink_to(blob)
    found = replace(resolve(own_clip, "clip"), source="hub")
    assert weight_hashes(found) == {"model.safetensors": "ab" * 32}
