import json
import os

import pytest
import torch

from cliper.checkpoints import check_folder, resolve, verify_checkpoint
from cliper.errors import CheckpointError


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def problem(folder, kind="clip"):
    with pytest.raises(CheckpointError) as caught:
        check_folder(folder, kind)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_complete_checkpoints_pass(tiny_clip, tiny_pipeline):
    check_folder(resolve("mini", "clip").folder, "clip")
    check_folder(str(tiny_clip), "clip")  # it has no tokenizer
    check_folder(tiny_pipeline, "diffusion")


def test_missing_folder_or_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    assert "got a file" in problem(tmp_path / "file")
    assert "got nothing there" in problem(tmp_path / "none")
    assert "got no config.json, no model.safetensors or pytorch_model.bin" in problem(tmp_path)
    assert "got no model_index.json" in problem(tmp_path, "diffusion")
    with pytest.raises(CheckpointError, match="kind"):
        check_folder(tmp_path, "unet")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "expected JSON"),
        ("[1]", "expected a JSON object, got list"),
        ('{"model_type": "siglip2"}', "expected a CLIP checkpoint (model_type 'clip' or 'metaclip_2' or"),
        ("{}", "or 'tipsv2'), got none"),
        ("\udcff", "expected JSON"),
    ],
)
def test_bad_config_is_refused(tiny_clip, text, words):
    (tiny_clip / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    assert words in problem(tiny_clip)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        *((name, 10_000_000) for name in ("config.json", "merges.txt", "tokenizer_config.json")),
        ("model.safetensors.index.json", 10_000_000),
        ("tokenizer.json", 200_000_000),
    ],
)
def test_too_large_text_file_is_refused(tiny_clip, name, limit):
    path = tiny_clip / name
    path.touch()
    os.truncate(path, limit + 1)  # sparse
    expected = f"{name}: expected at most {limit:,} bytes, got {limit + 1:,}; download it again"
    assert problem(tiny_clip) == f"{tiny_clip}/{expected}"
    assert verify_checkpoint(tiny_clip, "clip").problems == [expected]


def test_too_large_text_file_of_a_part_is_refused(tiny_pipeline):
    os.truncate(tiny_pipeline / "tokenizer" / "vocab.json", 10_000_001)
    assert "tokenizer/vocab.json: expected at most 10,000,000 bytes" in problem(tiny_pipeline, "diffusion")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vision_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers of at most 200, got 1000000000"),
        ({"text_config": {"hidden_size": 1e300}}, "hidden_size of at most 1,000,000, got 1e+300"),
        ({"text_config_dict": {"vocab_size": 10**100}}, "vocab_size of at most 1,000,000, got 1000"),
        ({"projection_dim": 10**7}, "projection_dim of at most 1,000,000, got 10000000"),
    ],
)
def test_size_that_no_model_has_is_refused(tiny_clip, changes, words):
    edit(tiny_clip / "config.json", **changes)
    message = problem(tiny_clip)
    assert f"config.json: expected {words}" in message
    assert len(message) < 300


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("unet", {"layers_per_block": [2, 201]}, "layers_per_block of at most 200, got 201"),
        ("unet", {"transformer_layers_per_block": [[2, 201]]}, "transformer_layers_per_block of at most 200"),
        ("vae", {"block_out_channels": [8] * 101}, "at most 100 values of block_out_channels, got 101"),
        ("scheduler", {"num_train_timesteps": 10**9}, "num_train_timesteps of at most 1,000,000, got 1000000000"),
    ],
)
def test_pipeline_with_a_size_that_no_model_has_is_refused(tiny_pipeline, part, changes, words):
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    edit(tiny_pipeline / part / name, **changes)
    message = problem(tiny_pipeline, "diffusion")
    assert f"{part}/{name}: expected " in message
    assert words in message


def test_other_kind_of_model_is_refused(tiny_clip):
    assert "DINOv2 or DINOv3 checkpoint (model_type 'vit' or 'dinov2' or 'dinov3_vit'), got 'clip'" in problem(
        tiny_clip, "dino"
    )
    edit(tiny_clip / "config.json", model_type="dinov2")
    check_folder(tiny_clip, "dino")


def test_missing_weights_are_refused(tiny_clip):
    weights = tiny_clip / "model.safetensors"
    weights.rename(tiny_clip / "model.fp16.safetensors")
    assert "got no model.safetensors or pytorch_model.bin (found model.fp16.safetensors)" in problem(tiny_clip)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_safetensors_are_refused(tiny_clip, kept):
    path = tiny_clip / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:kept])
    assert problem(tiny_clip).startswith(f"{path}: the weights cannot be read: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>not found</html>" * 10, "cannot be read"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "git lfs pull"),
        ((2).to_bytes(8, "little") + b"{}", "got a file without tensors"),
        ((4).to_bytes(8, "little") + b"oops", "cannot be read"),
        ((8).to_bytes(8, "little") + b'{"a": 1}', "cannot be read"),
    ],
)
def test_other_content_than_safetensors_is_refused(tiny_clip, content, words):
    (tiny_clip / "model.safetensors").write_bytes(content)
    assert words in problem(tiny_clip)


def test_too_long_safetensors_are_refused(tiny_clip):
    with (tiny_clip / "model.safetensors").open("ab") as stream:
        stream.write(b"more")
    assert "cannot be read" in problem(tiny_clip)


def test_pytorch_weights_are_checked(tiny_clip):
    (tiny_clip / "model.safetensors").unlink()
    path = tiny_clip / "pytorch_model.bin"
    torch.save({"a": torch.zeros(100)}, path)
    check_folder(tiny_clip, "clip")
    for content in (b"", b"<html>", path.read_bytes()[:-100]):
        path.write_bytes(content)
        assert f"{path}: the weights cannot be read" in problem(tiny_clip)
    torch.save({"a": torch.zeros(100)}, path, _use_new_zipfile_serialization=False)
    check_folder(tiny_clip, "clip")


def test_shards_are_checked(tiny_clip):
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    content = (tiny_clip / "model.safetensors").read_bytes()
    (tiny_clip / "model.safetensors").unlink()
    index = tiny_clip / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}))
    assert f"got no complete set of shards for {index.name} (found 0)" in problem(tiny_clip)
    (tiny_clip / shards[0]).write_bytes(content)
    assert f"got no complete set of shards for {index.name} (found 1)" in problem(tiny_clip)
    (tiny_clip / shards[1]).write_bytes(content[:-5])
    assert f"{shards[1]}: the weights cannot be read" in problem(tiny_clip)
    (tiny_clip / shards[1]).write_bytes(content)
    check_folder(tiny_clip, "clip")
    for weight_map in ({}, [], {"a": shards[0]}, {"a": shards[0], "b": "../b.bin"}, {"a": shards, "b": shards[0]}):
        index.write_text(json.dumps({"weight_map": weight_map}))
        assert "'weight_map'" in problem(tiny_clip)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model_index.json", "got no model_index.json"),
        ("unet", "got no unet/config.json, no unet/diffusion_pytorch_model.safetensors or"),
        ("tokenizer", "got no tokenizer/tokenizer.json"),
        ("tokenizer/merges.txt", "got no tokenizer/tokenizer.json (or vocab.json and merges.txt)"),
        ("vae/config.json", "got no vae/config.json"),
        ("vae/diffusion_pytorch_model.safetensors", "got no vae/diffusion_pytorch_model.safetensors or"),
        ("scheduler/scheduler_config.json", "got no scheduler/scheduler_config.json"),
    ],
)
def test_incomplete_pipeline_is_refused(tiny_pipeline, name, words):
    (tiny_pipeline / name).rename(tiny_pipeline.parent / "moved")
    assert words in problem(tiny_pipeline, "diffusion")


def test_pipeline_with_another_text_encoder_is_refused(tiny_pipeline):
    edit(tiny_pipeline / "text_encoder" / "config.json", model_type="t5")
    message = problem(tiny_pipeline, "diffusion")
    assert "text_encoder/config.json: expected a Stable Diffusion pipeline (model_type 'clip_text_model' or" in message
