"""Loading of pipelines, the cached prompt, and names of refiners."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import DEFAULT_LAYERS, build_tokenizer, plain_attention

from cliper.checkpoints import find_entry
from cliper.errors import CheckpointError, CliperError, RefinerError
from cliper.refiners import load_refiner, refiner_names
from cliper.refiners.diffusion import empty_prompt as prompt
from cliper.refiners.diffusion.empty_prompt import empty_prompt
from cliper.refiners.diffusion.unet_attention import layer_names
from cliper.settings import Settings
from oracle import reference

SETTINGS = Settings(map_threshold=0.1, refine_size=64)


@pytest.fixture
def pipeline(pipelines: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a pipeline, for tests that change it."""
    return Path(shutil.copytree(pipelines["sd2.1"], tmp_path / "pipeline"))


def change_weights(path: Path, change) -> None:
    tensors = load_file(path)
    save_file(change(tensors), path)


def refine(folder: Path, images, maps) -> torch.Tensor:
    refiner = load_refiner(folder, device="cpu")
    assert refiner is not None
    return refiner.refine(images[:1], maps[:1], SETTINGS)[0]


def test_decoder_is_not_loaded(pipeline: Path, images, maps) -> None:
    expected = refine(pipeline, images, maps)
    change_weights(
        pipeline / "vae" / "diffusion_pytorch_model.safetensors",
        lambda tensors: {k: v for k, v in tensors.items() if not k.startswith(("decoder", "post_quant"))},
    )
    assert torch.equal(refine(pipeline, images, maps), expected)
    vae = load_refiner(pipeline, device="cpu").vae
    assert not [name for name, _ in vae.named_parameters() if "decoder" in name or "post_quant" in name]


def test_old_names_of_the_autoencoders_attention(pipeline: Path, images, maps) -> None:
    """As in the published files of Stable Diffusion, which are older than today's names and shapes."""
    expected = refine(pipeline, images, maps)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(tensors):
        renamed = {}
        for name, tensor in tensors.items():
            new, old_name = next(((n, o) for n, o in old.items() if f".{n}." in name), ("", ""))
            if new:
                name = name.replace(new, old_name)
                tensor = tensor[:, :, None, None].contiguous() if tensor.ndim == 2 else tensor
            renamed[name] = tensor
        return renamed

    change_weights(pipeline / "vae" / "diffusion_pytorch_model.safetensors", rename)
    assert torch.equal(refine(pipeline, images, maps), expected)


def test_shards_and_pickles(pipeline: Path, images, maps) -> None:
    expected = refine(pipeline, images, maps)
    file = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    file.unlink()
    names = sorted(tensors)
    parts = {f"diffusion_pytorch_model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for name, keys in parts.items():
        save_file({key: tensors[key] for key in keys}, file.with_name(name))
    index = {"weight_map": {key: name for name, keys in parts.items() for key in keys}}
    file.with_name(file.name + ".index.json").write_text(json.dumps(index))
    assert torch.equal(refine(pipeline, images, maps), expected)
    for name in [*parts, file.name + ".index.json"]:
        file.with_name(name).unlink()
    torch.save(tensors, file.with_suffix(".bin"))
    assert torch.equal(refine(pipeline, images, maps), expected)


class Attack:
    """Runs code when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_that_would_run_code_is_refused(pipeline: Path, part: str, zipped: bool, tmp_path: Path) -> None:
    (weights,) = (pipeline / part).glob("*.safetensors")
    name = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
    content = {**load_file(weights), "attack": Attack(tmp_path / "proof")}
    torch.save(content, pipeline / part / name, _use_new_zipfile_serialization=zipped)
    weights.unlink()
    with pytest.raises(CheckpointError, match="the file holds more than tensors and could run code") as caught:
        load_refiner(pipeline, device="cpu")
    assert str(pipeline / part / name) in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "proof").exists()


def test_pickle_of_dino_that_would_run_code_is_refused(dinos: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(next(iter(dinos.values())), tmp_path / "dino"))
    content = {**load_file(folder / "model.safetensors"), "attack": Attack(tmp_path / "proof")}
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="the file holds more than tensors and could run code") as caught:
        load_refiner(folder, device="cpu")
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    "name",
    [
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "tokenizer/vocab.json",
    ],
)
def test_pipe_in_a_pipeline_is_refused(pipeline: Path, name: str) -> None:
    (pipeline / name).unlink()
    os.mkfifo(pipeline / name)
    with pytest.raises(CheckpointError, match="expected a file, got a pipe, socket or device"):
        load_refiner(pipeline, device="cpu")


def test_files_are_read_in_pieces(pipeline: Path, images, maps, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = refine(pipeline, images, maps)
    monkeypatch.setattr("cliper.refiners.diffusion.loading._CHUNK_BYTES", 10_000)
    assert torch.equal(refine(pipeline, images, maps), expected)


def test_prompt_is_encoded_once(pipeline: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = empty_prompt(pipeline)
    assert first.shape == (1, 77, 24)
    [kept] = own_cache.rglob("*.safetensors")

    def fail(_: Path) -> None:
        raise AssertionError("the prompt was encoded again")

    with monkeypatch.context() as patch:
        patch.setattr(prompt, "_encode", fail)
        assert torch.equal(empty_prompt(pipeline)[0], first)
        moved = Path(shutil.move(pipeline, pipeline.with_name("moved")))  # identified by content, not by path
        assert torch.equal(empty_prompt(moved)[0], first)
    for garbage in (b"", b"garbage", kept.read_bytes()[:-5]):
        kept.write_bytes(garbage)
        assert torch.equal(empty_prompt(moved)[0], first)
        assert kept.stat().st_size > 1000
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_other_weights_have_another_prompt(pipeline: Path, own_cache: Path) -> None:
    first, _ = empty_prompt(pipeline)
    change_weights(
        pipeline / "text_encoder" / "model.safetensors",
        lambda tensors: {k: v * 2 if "layers.1.mlp.fc2.weight" in k else v for k, v in tensors.items()},
    )
    assert not torch.equal(empty_prompt(pipeline)[0], first)
    assert len(list(own_cache.rglob("*.safetensors"))) == 2
    shutil.rmtree(pipeline / "tokenizer")
    build_tokenizer(pipeline / "tokenizer", "<|endoftext|>")  # it pads with another word
    assert not torch.equal(empty_prompt(pipeline)[0], first)
    assert len(list(own_cache.rglob("*.safetensors"))) == 3


@pytest.mark.parametrize("lacking", ["layers.1.mlp.fc2.weight", "layers."])
def test_text_encoder_with_missing_weights(pipeline: Path, own_cache: Path, lacking: str) -> None:
    """transformers would fill missing weights with random numbers, and their embedding would be cached."""
    weights = pipeline / "text_encoder" / "model.safetensors"
    change_weights(weights, lambda tensors: {k: v for k, v in tensors.items() if lacking not in k})
    missing = r"text_encoder: expected every weight .*: \d+ tensors? (is|are) missing: \S*layers\.\S+"
    with pytest.raises(CheckpointError, match=missing):
        empty_prompt(pipeline)
    assert not list(own_cache.rglob("*.safetensors"))


def test_text_encoder_with_nan_weights(pipeline: Path, own_cache: Path) -> None:
    weights = pipeline / "text_encoder" / "model.safetensors"
    change_weights(weights, lambda tensors: {k: v * torch.nan if "fc2" in k else v for k, v in tensors.items()})
    with pytest.raises(CheckpointError, match=r"empty prompt, got NaN or infinity: the weights are broken"):
        load_refiner(pipeline, device="cpu")
    assert not list(own_cache.rglob("*.safetensors"))


def test_cache_that_cannot_be_written(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLIPER_CACHE", str(tmp_path / "file"))
    assert empty_prompt(pipeline)[0].shape == (1, 77, 24)


def test_another_scheduler_is_used_with_a_warning(
    pipeline: Path, images, maps, caplog: pytest.LogCaptureFixture
) -> None:
    config = json.loads((pipeline / "scheduler" / "scheduler_config.json").read_text())
    for name in ("DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"):
        other = config | {"_class_name": name, "steps_offset": 0, "timestep_spacing": "trailing"}
        (pipeline / "scheduler" / "scheduler_config.json").write_text(json.dumps(other))
        caplog.clear()
        refiner = load_refiner(pipeline, device="cpu")
        assert type(refiner.scheduler).__name__ == name
        assert "at step 45 of 50, where the method has 101" in caplog.text
        assert torch.isfinite(refiner.refine(images[:1], maps[:1], SETTINGS)[0]).all()
    other = config | {"_class_name": "PNDMScheduler", "steps_offset": 1}
    (pipeline / "scheduler" / "scheduler_config.json").write_text(json.dumps(other))
    caplog.clear()
    load_refiner(pipeline, device="cpu")
    assert not caplog.text
    (pipeline / "scheduler" / "scheduler_config.json").write_text(json.dumps(config | {"_class_name": "Nonsense"}))
    with pytest.raises(CheckpointError, match="scheduler that adds noise, such as PNDMScheduler, got 'Nonsense'"):
        load_refiner(pipeline, device="cpu")


# BK-SDM removes blocks of Stable Diffusion's UNet: one block in place of two in each level ("small"), then the lowest
# level and the middle block ("tiny").
BK_SDM: dict[str, dict[str, Any]] = {
    "base": {"layers_per_block": 1},
    "small": {"layers_per_block": 1, "mid_block_type": None},
    "tiny": {
        "layers_per_block": 1,
        "mid_block_type": None,
        "block_out_channels": (16, 32, 32),
        "down_block_types": ("CrossAttnDownBlock2D",) * 3,
        "up_block_types": ("CrossAttnUpBlock2D",) * 3,
    },
}


@pytest.mark.parametrize("kind", BK_SDM)
def test_unets_of_bk_sdm(pipeline: Path, images, maps, kind: str) -> None:
    from diffusers import UNet2DConditionModel

    shutil.rmtree(pipeline / "unet")
    shape = {"sample_size": 8, "block_out_channels": (16, 32, 32, 32), "norm_num_groups": 8, "attention_head_dim": 2}
    unet = UNet2DConditionModel(cross_attention_dim=24, **{**shape, **BK_SDM[kind]})
    unet.save_pretrained(pipeline / "unet")
    top = len(unet.up_blocks) - 1
    layers = (f"up_blocks.{top}.attentions.1", f"up_blocks.{top}.attentions.0")
    mean = SETTINGS.replace(refine_mode="mean", refine_threshold=0)
    refined = load_refiner(pipeline, device="cpu").refine(images[:1], maps[:1], mean)[0]
    attention = plain_attention(pipeline, images[0], 0, layers=layers)
    expected = torch.stack([reference.refine(maps[0], one[None], 0) for one in attention]).mean(0)
    torch.testing.assert_close(refined, expected, atol=1e-4, rtol=0)


def test_unet_without_self_attention_in_its_last_block(pipeline: Path, images, maps) -> None:
    from diffusers import UNet2DConditionModel

    shutil.rmtree(pipeline / "unet")
    UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 16),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=2,
    ).save_pretrained(pipeline / "unet")
    refiner = load_refiner(pipeline, device="cpu")
    layers = ("up_blocks.0.attentions.1", "up_blocks.0.attentions.0")  # the last block has none
    named = refiner.refine(images, maps, SETTINGS.replace(refine_layers=layers))
    assert named[0].shape == (3, 4, 4)
    assert torch.equal(refiner.refine(images, maps, SETTINGS)[0], named[0])
    wrong = SETTINGS.replace(refine_layers=("up_blocks.1",))
    with pytest.raises(RefinerError, match=r"no self-attention layer 'up_blocks.1'.*up_blocks.0.attent"):
        refiner.refine(images, maps, wrong)


def test_broken_pipelines(pipeline: Path) -> None:
    unet = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    whole = unet.read_bytes()
    change_weights(unet, lambda tensors: {k: v for k, v in tensors.items() if k != "conv_in.weight"})
    with pytest.raises(CheckpointError, match=r"1 weights are missing, conv_in.weight first"):
        load_refiner(pipeline, device="cpu")
    unet.write_bytes(whole)
    change_weights(unet, lambda tensors: tensors | {"conv_in.weight": torch.rand(2, 2)})
    with pytest.raises(CheckpointError, match=r"conv_in.weight: expected shape \[16, 4, 3, 3\], got \[2, 2\]"):
        load_refiner(pipeline, device="cpu")
    unet.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="weights cannot be read"):
        load_refiner(pipeline, device="cpu")
    unet.write_bytes(whole)
    (pipeline / "vae" / "config.json").write_text(
        json.dumps({"_class_name": "AutoencoderKL", "down_block_types": ["No"]})
    )
    with pytest.raises(CheckpointError, match="not the configuration of its AutoencoderKL"):
        load_refiner(pipeline, device="cpu")


def test_names() -> None:
    assert load_refiner(None) is None
    assert load_refiner("none") is None
    names = refiner_names()
    assert {"none", "self", "sd2.1", "sd1.5", "sd1.4", "dino-s8", "dinov2-g14"} <= {*names}
    assert all(find_entry(name) is not None for name in names[2:])


@pytest.mark.parametrize("name", ["sd3", "dinov2-s15", "~/nowhere", "./nowhere", "a/b/c"])
def test_unknown_refiner(name: str) -> None:
    with pytest.raises(RefinerError, match=r"no refiner is called.*none, self, sd2.1, sd1.5.*dinov2-g14.*hub name"):
        load_refiner(name)


@pytest.mark.parametrize(("name", "near"), [("slef", "self"), ("SD21", "sd2.1"), ("dino-v2-b14", "dinov2-b14")])
def test_similar_refiner_is_suggested(name: str, near: str) -> None:
    with pytest.raises(RefinerError, match=rf"no refiner is called '{name}' \(did you mean {near}\?\)"):
        load_refiner(name)


def test_checkpoints_that_are_not_refiners(tmp_path: Path, clip_folder: Path) -> None:
    with pytest.raises(RefinerError, match=r"model_index.json.*got neither"):
        load_refiner(tmp_path)
    with pytest.raises(RefinerError, match="got a CLIP"):
        load_refiner(clip_folder)
    with pytest.raises(RefinerError, match="is a CLIP checkpoint, not a refiner"):
        load_refiner("ViT-B/16")
    with pytest.raises(RefinerError, match="'self' reads the CLIP encoder"):
        load_refiner("self")
    with pytest.raises(CliperError):
        load_refiner("owner/no-such-repository")


def test_layers_of_stable_diffusion_1(pipelines: dict[str, Path], images, maps) -> None:
    refiner = load_refiner(str(pipelines["sd1.5"]), device="cpu")
    assert {*DEFAULT_LAYERS} <= {*layer_names(refiner.unet)}
