"""The towers of a CLIP beside those of transformers, and the forms in which their weights are stored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from cliper.checkpoints import check_folder
from cliper.checkpoints.clip import read_clip_config
from cliper.encoders.clip import ClipEncoder, load_clip
from cliper.errors import CheckpointError, ResourceError

MINI = Path(__file__).parents[2] / "src" / "cliper" / "checkpoints" / "mini"
CPU = torch.device("cpu")
# Both compute in float32 and sum in other orders. It is the limit of each number of an embedding, which has length 1,
# and of the relative difference of a tower's output. Between mini's layers transformers itself is up to 4e-6 away from
# float64; there the two must be closer to each other than that.
TOLERANCE = 1e-6
TEXTS = ["dog", "a photo of a wooden bench by the sea.", "naïve, très élégant: 12 Äpfel!", "", "word " * 75]
WEIGHT = "visual_projection.weight"


def save_random(folder: Path, *, text: dict[str, Any], vision: dict[str, Any], projection: int) -> Path:
    """A random CLIP whose attention is far from uniform, with mini's tokenizer."""
    special = {"vocab_size": 16000, "bos_token_id": 15998, "eos_token_id": 15999, "pad_token_id": 15999}
    torch.manual_seed(projection)
    model = CLIPModel(CLIPConfig(text_config=special | text, vision_config=vision, projection_dim=projection))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "layrnorm" in name or name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif parameter.dim() > 1:
                gain = 0.1 if "embedding" in name else 1.5 / parameter.shape[-1] ** 0.5
                parameter.copy_(torch.randn_like(parameter) * gain)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MINI / name, folder)
    return folder


def tower(width: int, heads: int, layers: int, **others: Any) -> dict[str, Any]:
    sizes = {"hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": layers}
    return sizes | {"intermediate_size": 2 * width + 8} | others


SHAPES: dict[str, dict[str, Any]] = {
    "quick_gelu": {"text": tower(32, 2, 2), "vision": tower(64, 2, 3, image_size=64, patch_size=16), "projection": 24},
    "gelu": {
        "text": tower(48, 3, 3, hidden_act="gelu"),
        "vision": tower(32, 4, 2, hidden_act="gelu", layer_norm_eps=1e-6, image_size=42, patch_size=14),
        "projection": 40,
    },
    "old end token": {
        "text": tower(64, 1, 1, eos_token_id=2, layer_norm_eps=1e-6),
        "vision": tower(48, 3, 4, image_size=96, patch_size=32),
        "projection": 64,
    },
}


@pytest.fixture(scope="module", params=[*SHAPES, "mini"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each shape."""
    if request.param == "mini":
        return MINI
    return save_random(tmp_path_factory.mktemp("clip"), **SHAPES[request.param])


def load(folder: Path, dtype: torch.dtype = torch.float32) -> ClipEncoder:
    check_folder(folder, "clip")
    return load_clip(folder, device=CPU, dtype=dtype)


@torch.no_grad()
def test_text_embeddings_equal_those_of_transformers(folder: Path) -> None:
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = CLIPTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    expected = F.normalize(model.text_projection(model.text_model(**tokens).pooler_output), dim=-1)
    got = load(folder).encode_texts(TEXTS)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
    assert (got @ got.T - torch.eye(len(TEXTS))).max() < 0.999  # they differ, or the comparison would show nothing


@torch.no_grad()
def test_hidden_states_of_images_equal_those_of_transformers(folder: Path) -> None:
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    side = model.config.vision_config.image_size
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    expected = model.vision_model(pixels, output_hidden_states=True).hidden_states
    exact = model.double().vision_model(pixels.double(), output_hidden_states=True).hidden_states
    encoder = load(folder)
    assert encoder.num_layers == len(expected) - 1
    for layer in range(1, encoder.num_layers + 1):
        theirs = expected[layer][:, 1:]
        rounding = 0 if layer == encoder.num_layers else (theirs - exact[layer][:, 1:]).norm()
        difference = (encoder.patch_features(pixels, layer) - theirs).norm()
        assert difference <= max(rounding, TOLERANCE * theirs.norm())


# --- stored weights --------------------------------------------------------------------------------------


def shard(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(sorted(tensors))}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in tensors if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def old_pickle(folder: Path) -> None:
    parameters = {name: torch.nn.Parameter(t) for name, t in load_file(folder / "model.safetensors").items()}
    torch.save({"state_dict": parameters}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (folder / "model.safetensors").unlink()


def with_other_tensors(folder: Path) -> None:
    """As older releases and other tasks save it."""
    change(folder, lambda t: t.update({"text_model.embeddings.position_ids": torch.arange(77)[None]}))


def old_configuration(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config = {"text_config_dict": config.pop("text_config"), "vision_config_dict": config.pop("vision_config")} | config
    path.write_text(json.dumps(config | {"text_config": {"hidden_size": 8}, "vision_config": None}))


@pytest.mark.parametrize("form", [shard, pickled, old_pickle, with_other_tensors, old_configuration])
def test_embeddings_do_not_depend_on_the_form_of_the_files(
    clip_folder: Path, own_clip: Path, form: Callable[[Path], None]
) -> None:
    form(own_clip)
    assert torch.equal(load(own_clip).encode_texts(TEXTS), load(clip_folder).encode_texts(TEXTS))


def test_weights_in_float16_are_computed_with_in_the_dtype_that_is_asked_for(own_clip: Path) -> None:
    exact = load(own_clip).encode_texts(TEXTS)
    change(own_clip, lambda tensors: tensors.update({name: t.half() for name, t in tensors.items()}))
    encoder = load(own_clip)
    assert encoder.dtype == torch.float32
    torch.testing.assert_close(encoder.encode_texts(TEXTS), exact, atol=5e-3, rtol=0)  # of a rounding to 11 bits
    half = load(own_clip, torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.encode_texts(TEXTS).dtype == torch.float32


# --- weights that do not fit -----------------------------------------------------------------------------


def change(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a folder's weights."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, section: str, **values: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config[section] |= values
    path.write_text(json.dumps(config))


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_clip(folder, device=CPU, dtype=torch.float32)
    message = str(caught.value)
    assert message.startswith(f"{folder}: ")
    assert "\n" not in message
    return message


def test_missing_weight_is_named(own_clip: Path) -> None:
    change(own_clip, lambda tensors: tensors.pop(WEIGHT))
    assert f"1 tensor is missing: {WEIGHT}; download" in refusal(own_clip)


def test_weight_of_another_shape_is_named(own_clip: Path) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors[WEIGHT] = torch.zeros(3, 4)
        del tensors["logit_scale"]

    change(own_clip, edit)
    assert f"{WEIGHT}: expected shape [24, 32], got [3, 4] (problem 1 of 2); download" in refusal(own_clip)


def test_nothing_is_allocated_for_weights_that_the_files_cannot_hold(own_clip: Path) -> None:
    """100 layers of width 65,536 in float32 are 10 TB."""
    sizes = {"num_hidden_layers": 100, "hidden_size": 65_536, "intermediate_size": 65_536}
    change_config(own_clip, "text_config", **sizes)
    assert "config.json describes 2,578,101,291,489 weights, the files have" in refusal(own_clip)


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("vision_config", {"hidden_size": "x"}, "vision_config.hidden_size: expected a whole number above 0, got 'x'"),
        ("vision_config", {"patch_size": 0}, "vision_config.patch_size: expected a whole number above 0, got 0"),
        ("text_config", {"vocab_size": True}, "vocab_size: expected a whole number above 0, got True"),
        ("text_config", {"layer_norm_eps": None}, "text_config.layer_norm_eps: expected a number above 0, got None"),
        (
            "text_config",
            {"num_attention_heads": 7},
            "text_config: expected a hidden_size that 7 attention heads divide, got 32",
        ),
        ("text_config", {"hidden_act": "mish"}, "relu, got 'mish'"),
    ],
)
def test_impossible_configuration_is_named(own_clip: Path, section: str, values: dict[str, Any], words: str) -> None:
    change_config(own_clip, section, **values)
    message = refusal(own_clip)
    assert "could not read the weights: config.json: " in message
    assert words in message


def test_defaults_of_a_configuration_are_those_of_transformers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    own, theirs = read_clip_config(tmp_path), CLIPConfig()
    assert own.projection_dim == theirs.projection_dim
    for mine, their in ((own.text, theirs.text_config), (own.vision, theirs.vision_config)):
        assert {name: getattr(their, name) for name in vars(mine)} == vars(mine)
    with torch.device("meta"):
        assert own.shapes() == {name: tuple(p.shape) for name, p in CLIPModel(theirs).named_parameters()}


def test_running_out_of_memory_is_not_a_damaged_checkpoint(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("cliper.checkpoints.clip.iter_tensors", fail)
    with pytest.raises(ResourceError, match="loading"):
        load_clip(clip_folder, device=CPU, dtype=torch.float32)
