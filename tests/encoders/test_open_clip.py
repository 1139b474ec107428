"""Weights of OpenCLIP and OpenAI, as files and folders, beside the same weights in the format of transformers."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_clip_encoder import save_random, tower
from torch import Tensor, nn
from transformers import CLIPTokenizer

from cliper import Segmenter
from cliper.checkpoints import resolve, verify_checkpoint
from cliper.checkpoints.torchscript import iter_torchscript
from cliper.cli.runs import read_model_config
from cliper.encoders.tokenizer import _clip_vocabulary, load_tokenizer
from cliper.errors import CheckpointError, CliperError
from cliper.settings import Settings

TEXTS = ["dog", "a photo of a wooden bench by the sea.", "naïve, 12 Äpfel & 犬"]
# The same numbers in the same order of operations: only the memory layout of the weights may change a sum.
TOLERANCE = 1e-5


def open_clip_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of transformers' CLIP with OpenCLIP's names and shapes, written here independently of the package."""
    t = dict(tensors)
    out = {
        "logit_scale": t.pop("logit_scale"),
        "text_projection": t.pop("text_projection.weight").T,
        "visual.proj": t.pop("visual_projection.weight").T,
        "positional_embedding": t.pop("text_model.embeddings.position_embedding.weight"),
        "token_embedding.weight": t.pop("text_model.embeddings.token_embedding.weight"),
        "visual.class_embedding": t.pop("vision_model.embeddings.class_embedding"),
        "visual.conv1.weight": t.pop("vision_model.embeddings.patch_embedding.weight"),
        "visual.positional_embedding": t.pop("vision_model.embeddings.position_embedding.weight"),
    }
    for tower_name, prefix in (("text_model", ""), ("vision_model", "visual.")):
        layer = 0
        while f"{tower_name}.encoder.layers.{layer}.layer_norm1.weight" in t:
            old, new = f"{tower_name}.encoder.layers.{layer}", f"{prefix}transformer.resblocks.{layer}"
            for leaf in ("weight", "bias"):
                qkv = [t.pop(f"{old}.self_attn.{kind}_proj.{leaf}") for kind in "qkv"]
                out[f"{new}.attn.in_proj_{leaf}"] = torch.cat(qkv)
                out[f"{new}.attn.out_proj.{leaf}"] = t.pop(f"{old}.self_attn.out_proj.{leaf}")
                out[f"{new}.ln_1.{leaf}"] = t.pop(f"{old}.layer_norm1.{leaf}")
                out[f"{new}.ln_2.{leaf}"] = t.pop(f"{old}.layer_norm2.{leaf}")
                out[f"{new}.mlp.c_fc.{leaf}"] = t.pop(f"{old}.mlp.fc1.{leaf}")
                out[f"{new}.mlp.c_proj.{leaf}"] = t.pop(f"{old}.mlp.fc2.{leaf}")
            layer += 1
    for leaf in ("weight", "bias"):
        out[f"ln_final.{leaf}"] = t.pop(f"text_model.final_layer_norm.{leaf}")
        out[f"visual.ln_pre.{leaf}"] = t.pop(f"vision_model.pre_layrnorm.{leaf}")
        out[f"visual.ln_post.{leaf}"] = t.pop(f"vision_model.post_layernorm.{leaf}")
    assert not t
    return {name: tensor.contiguous() for name, tensor in out.items()}


class Tree(nn.Module):
    """A module with parameters at the places that dotted names say."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        for head in dict.fromkeys(name.partition(".")[0] for name in tensors):
            if head in tensors:
                self.register_parameter(head, nn.Parameter(tensors[head], requires_grad=False))
            else:
                below = {n.partition(".")[2]: t for n, t in tensors.items() if n.partition(".")[0] == head}
                self.add_module(head, Tree(below))

    def forward(self, x: Tensor) -> Tensor:
        return x


def config(activation: str, **others: Any) -> str:
    model = {"embed_dim": 24, "vision_cfg": {"head_width": 32}, "text_cfg": {"heads": 2}} | others
    preprocessing = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
    model |= {"quick_gelu": True} if activation == "quick_gelu" else {}
    return json.dumps({"model_cfg": model, "preprocess_cfg": preprocessing})


def archive(folder: Path, tensors: dict[str, Tensor], activation: str) -> str:
    """As OpenAI publishes it; the widths of the heads are those of its models."""
    path = folder / "ViT-tiny.pt"
    torch.jit.trace(Tree(tensors), torch.zeros(1)).save(str(path))
    return f"{path}@{activation}" if activation == "gelu" else str(path)


def hub_folder(folder: Path, tensors: dict[str, Tensor], activation: str) -> str:
    save_file(tensors, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(config(activation))
    return str(folder)


def sharded_hub_folder(folder: Path, tensors: dict[str, Tensor], activation: str) -> str:
    files = {name: f"open_clip_model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in tensors if files[name] == file}, folder / file)
    (folder / "open_clip_model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (folder / "open_clip_config.json").write_text(config(activation))
    return str(folder)


def file_with_configuration(folder: Path, tensors: dict[str, Tensor], activation: str) -> str:
    torch.save(tensors, folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_config.json").write_text(config(activation))
    return str(folder / "open_clip_pytorch_model.bin")


def training_checkpoint(folder: Path, tensors: dict[str, Tensor], activation: str) -> str:
    """As OpenCLIP saves it while it trains, of a model with a text tower of its own."""
    state = {
        f"module.{'' if name.startswith(('visual', 'logit')) else 'text.'}{name}": t for name, t in tensors.items()
    }
    torch.save({"epoch": 3, "state_dict": state | {"module.attn_mask": torch.zeros(2, 2)}}, folder / "epoch_3.pt")
    return f"{folder / 'epoch_3.pt'}@{activation}"


FORMS = [archive, hub_folder, sharded_hub_folder, file_with_configuration, training_checkpoint]
ACTIVATIONS = ["quick_gelu", "gelu"]


def save_transformers(folder: Path, activation: str, heads: int) -> Path:
    """A tiny CLIP with CLIP's own vocabulary, in the format of transformers."""
    special = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    text = tower(64, heads, 2, hidden_act=activation, **special)
    vision = tower(64, heads, 3, hidden_act=activation, image_size=64, patch_size=16)
    save_random(folder, text=text, vision=vision, projection=24)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    vocabulary, merges = _clip_vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """A checkpoint in the format of transformers, of an activation and number of heads."""
    known: dict[tuple[str, int], Path] = {}

    def save(activation: str, heads: int) -> Path:
        key = (activation, heads)
        if key not in known:
            known[key] = save_transformers(tmp_path_factory.mktemp("clip"), *key)
        return known[key]

    return save


@pytest.fixture
def tensors(saved: Callable[[str, int], Path]) -> dict[str, Tensor]:
    return open_clip_names(load_file(saved("quick_gelu", 1) / "model.safetensors"))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_class_maps_equal_those_of_the_same_weights_in_the_format_of_transformers(
    saved: Callable[[str, int], Path], tmp_path: Path, form: Callable[..., str], activation: str
) -> None:
    with_configuration = form in (hub_folder, sharded_hub_folder, file_with_configuration)
    folder = saved(activation, 2 if with_configuration else 1)  # one head of width 64 where nothing says it
    name = form(tmp_path, open_clip_names(load_file(folder / "model.safetensors")), activation)
    theirs, ours = Segmenter.from_pretrained(folder, device="cpu"), Segmenter.from_pretrained(name, device="cpu")
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    found = []
    for segmenter in (theirs, ours):
        texts = segmenter.encode_text(TEXTS)
        found.append((texts, segmenter.class_maps(pixels, texts)))
    torch.testing.assert_close(found[1], found[0], atol=TOLERANCE, rtol=0)
    assert found[0][1].std() > 0.01  # the maps are not uniform, or the comparison would show nothing
    assert verify_checkpoint(name).problems == []


def test_weights_in_float16_are_read_from_an_archive(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = Path(archive(tmp_path, {name: t.half() for name, t in tensors.items()}, "quick_gelu"))
    read = dict(iter_torchscript(path))
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], t.half()) for name, t in tensors.items())


# --- CLIP's vocabulary -----------------------------------------------------------------------------------


def test_bundled_vocabulary_gives_the_known_tokens(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text("{}")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.get_vocab_size() == 49408
    # As CLIP's own tokenizer gives them.
    assert tokenizer.encode("a photo of a cat").ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_tokens_equal_those_of_transformers(saved: Callable[[str, int], Path], tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text("{}")
    ours, theirs = load_tokenizer(tmp_path), CLIPTokenizer.from_pretrained(saved("gelu", 1))
    assert [ours.encode(text).ids for text in TEXTS] == theirs(TEXTS)["input_ids"]


# --- what is refused -------------------------------------------------------------------------------------


def refusal(name: str) -> str:
    with pytest.raises(CliperError) as caught:
        Segmenter.from_pretrained(name, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_file_of_unknown_activation_is_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "open_clip_model.safetensors")
    message = refusal(str(tmp_path / "open_clip_model.safetensors"))
    assert "expected its activation in open_clip_config.json beside it, got none; give --activation" in message


def test_activation_beside_that_of_a_configuration_is_refused(saved: Callable[[str, int], Path]) -> None:
    assert "expected no activation beside that of config.json, got gelu" in refusal(f"{saved('gelu', 1)}@gelu")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vision_cfg": {"timm_model_name": "vit_base"}}, "got vision_cfg timm_model_name"),
        ({"text_cfg": {"hf_model_name": "roberta-base"}}, "got text_cfg hf_model_name"),
        ({"vision_cfg": {"head_width": 0}}, "vision_cfg.head_width: expected a whole number above 0, got 0"),
        ({"vision_cfg": {"head_width": 4096}}, "vision_cfg.head_width: expected at most the width"),
        ({"text_cfg": []}, "text_cfg: expected an object, got list"),
    ],
)
def test_configuration_of_another_architecture_is_refused(
    tensors: dict[str, Tensor], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    hub_folder(tmp_path, tensors, "gelu")
    (tmp_path / "open_clip_config.json").write_text(config("gelu", **changes))
    assert words in refusal(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"model_cfg": []}', "model_cfg: expected an object, got list"),
        ('{"model_cfg": {"quick_gelu": "false"}}', "quick_gelu: expected true or false, got 'false'"),
        pytest.param('{"model_cfg": {}}' + 10_000_000 * " ", "expected at most 10,000,000 bytes", id="large"),
        ('{"model_cfg": {}, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}}', "preprocess_cfg.mean: expected CLIP's"),
    ],
)
def test_configuration_with_other_content_is_refused(
    tensors: dict[str, Tensor], tmp_path: Path, text: str, words: str
) -> None:
    hub_folder(tmp_path, tensors, "gelu")
    (tmp_path / "open_clip_config.json").write_text(text)
    assert words in refusal(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("visual.layer1.0.conv1.weight", "visual.layer1.0.conv1.weight is none of them"),  # of a ResNet
        ("transformer.resblocks.0.ls_1.gamma", "transformer.resblocks.0.ls_1.gamma is none of them"),
        (
            "vision_model.post_layernorm.weight",
            "is none of them (a file in transformers' format is given by its folder",
        ),
    ],
)
def test_weights_of_another_architecture_are_refused(
    tensors: dict[str, Tensor], tmp_path: Path, name: str, words: str
) -> None:
    save_file(tensors | {name: torch.zeros(3)}, tmp_path / "x.safetensors")
    assert words in refusal(f"{tmp_path / 'x.safetensors'}@gelu")


def test_other_vocabulary_needs_a_tokenizer(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    tensors["token_embedding.weight"] = tensors["token_embedding.weight"][:100].clone()
    save_file(tensors, tmp_path / "x.safetensors")
    assert "expected CLIP's vocabulary of 49,408 tokens, got 100" in refusal(f"{tmp_path / 'x.safetensors'}@gelu")


def test_missing_weight_is_named(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    del tensors["visual.ln_pre.bias"]
    message = refusal(archive(tmp_path, tensors, "quick_gelu"))
    assert "1 tensor is missing: vision_model.pre_layrnorm.bias" in message


# --- tensors that are no weights -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (1, lambda _: torch.zeros(1), "expected names of tensors, got 1"),
        ("visual.proj", lambda _: torch.tensor(1.0), "expected the weights of a CLIP"),
        ("visual.proj", lambda t: t.expand(2, -1, -1).contiguous(), "expected shape"),
        ("visual.transformer.resblocks.0.attn.in_proj_weight", lambda _: torch.tensor(1.0), "1-dimensional"),
        ("visual.class_embedding", lambda t: t.to_sparse(), "expected a dense tensor"),
        ("visual.class_embedding", lambda t: t.to("meta"), "expected a dense tensor"),
        ("visual.class_embedding", lambda t: t.to(torch.complex64), "floating-point numbers, got complex64"),
        ("visual.class_embedding", lambda t: (100 * t).to(torch.int8), "floating-point numbers, got int8"),
    ],
)
def test_tensor_that_is_no_weight_is_refused(
    tensors: dict[str, Tensor], tmp_path: Path, name: Any, change: Callable[[Tensor], Tensor], words: str
) -> None:
    path = tmp_path / "x.pt"
    torch.save({**tensors, name: change(tensors.get(name, torch.zeros(1)))}, path)
    assert re.search(words, refusal(f"{path}@gelu"))


@pytest.mark.parametrize("value", [[], {"state_dict": None}, torch.zeros(1)])
def test_file_without_names_is_refused(tmp_path: Path, value: Any) -> None:
    torch.save(value, tmp_path / "x.pt")
    assert "expected tensors by name, got" in refusal(f"{tmp_path / 'x.pt'}@gelu")


def test_compressed_file_of_pytorch_is_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    """It would be unpacked in memory, whatever its size."""
    torch.save(tensors, tmp_path / "stored.pt")
    with (
        zipfile.ZipFile(tmp_path / "stored.pt") as stored,
        zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as file,
    ):
        for name in stored.namelist():
            file.writestr(name, stored.read(name))
    assert "expected uncompressed entries" in refusal(f"{tmp_path / 'x.pt'}@gelu")


# --- names -----------------------------------------------------------------------------------------------


def test_other_files_and_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"")
    (tmp_path / "x.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="expected the folder of a CLIP checkpoint, got a file"):
        resolve(tmp_path / "photo.jpg", "clip")
    with pytest.raises(CheckpointError, match="got a file"):
        resolve(tmp_path / "x.pt", "dino")


def test_runs_in_other_folders_find_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.pt").touch()
    monkeypatch.chdir(tmp_path)
    for name, expected in (
        ("x.pt@gelu", f"{tmp_path / 'x.pt'}@gelu"),
        ("x.pt", f"{tmp_path / 'x.pt'}"),
        ("a/b", "a/b"),
    ):
        options = {"model": name, "refiner": None, "device": None, "dtype": None, "seed": 0}
        assert read_model_config(options, Settings()).model == expected


def test_activation_is_an_option_of_the_command_line(
    tensors: dict[str, Tensor], tmp_path: Path, command: Callable[..., Any]
) -> None:
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    arguments = ["segment", "--example", "-c", "horse; dog", "--size", "64", "--out", str(tmp_path / "out.png")]
    assert "give --activation" in command(*arguments, "--model", str(path)).err
    ended = command(*arguments, "--model", str(path), "--activation", "gelu")
    assert ended.code == 0, ended.err
    assert (tmp_path / "out.png").is_file()
