"""SigLIP 2, MetaCLIP 2 and TIPSv2 beside transformers, and early-layer fusion on each beside plain code."""

from __future__ import annotations

import json
import shutil
import string
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

import cliper
from cliper.checkpoints import check_folder, recommended_settings, resolve, verify_checkpoint
from cliper.checkpoints.families import CONFIGS
from cliper.encoders.clip import ClipEncoder, load_clip
from cliper.encoders.tokenizer import load_tokenizer
from cliper.errors import CheckpointError, ClassListError
from cliper.ops import RECIPES
from cliper.settings import load_preset

CPU = torch.device("cpu")
# Both compute in float32 and sum in other orders. It is the limit of each number of an embedding, which has length 1,
# and of the relative difference of a tower's output. (It was measured: up to 2e-6.)
TOLERANCE = 1e-5
TEXTS = ["dog", "a photo of a cat.", "Dog's CAT", "a"]
SIDE = 64
LENGTH = 24  # of the text towers, in tokens

CLASSES: dict[str, tuple[str, str]] = {
    "siglip": ("SiglipConfig", "SiglipModel"),
    "metaclip_2": ("MetaClip2Config", "MetaClip2Model"),
    "tipsv2": ("Tipsv2Config", "Tipsv2Model"),
}
PIECES = [*string.ascii_letters, "'", ".", "▁", "at", "og", "ph", "▁d", "▁dog"]
MERGES = [("a", "t"), ("o", "g"), ("p", "h"), ("▁", "d"), ("▁d", "og")]


def save_tokenizer(family: str, folder: Path) -> Any:
    """A tokenizer of a family's class with a small vocabulary."""
    special = {
        "siglip": ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"],
        "metaclip_2": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        "tipsv2": ["<pad>", "<unk>"],
    }[family]
    vocabulary = {token: index for index, token in enumerate([*special, *PIECES])}
    if family == "siglip":
        made = transformers.Siglip2Tokenizer(vocab=vocabulary, merges=MERGES, padding_side="right")
        end = [("<eos>", 1)]
        made._tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=end)
    elif family == "tipsv2":
        made = transformers.Tipsv2Tokenizer(vocab=vocabulary, merges=MERGES)
    else:
        backend = Tokenizer(models.Unigram([(token, -1.0 - 0.1 * i) for token, i in vocabulary.items()], unk_id=3))
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        ends = [("<s>", 0), ("</s>", 2)]
        backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
        made = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    made.save_pretrained(folder)
    return made


def save_model(family: str, folder: Path) -> Any:
    """A random model of a family whose attention is far from uniform."""
    sizes = {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 104}
    text: dict[str, Any] = sizes | {"num_hidden_layers": 2, "vocab_size": 80, "max_position_embeddings": LENGTH}
    vision: dict[str, Any] = sizes | {"num_hidden_layers": 3, "image_size": SIDE, "patch_size": 16}
    others: dict[str, Any] = {}
    if family == "metaclip_2":
        text |= {"hidden_size": 32, "num_attention_heads": 2, "eos_token_id": 2}
        others["projection_dim"] = 24
    if family == "tipsv2":
        vision = {name: value for name, value in vision.items() if name != "intermediate_size"}
        vision |= {"mlp_ratio": 2.5, "num_register_tokens": 2}
    config_name, model_name = CLASSES[family]
    config = getattr(transformers, config_name)(text_config=text, vision_config=vision, **others)
    torch.manual_seed(1)
    model = getattr(transformers, model_name)(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias") or "lambda" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif parameter.dim() > 1:
                gain = 0.3 if "embedding" in name or "token" in name else 1.5 / parameter.shape[-1] ** 0.5
                parameter.copy_(torch.randn_like(parameter) * gain)
    model.save_pretrained(folder)
    return model


class Case:
    """A family's random model, in transformers and here."""

    def __init__(self, family: str, folder: Path) -> None:
        self.family, self.folder = family, folder
        self.tokenizer, self.model = save_tokenizer(family, folder), save_model(family, folder)
        check_folder(folder, "clip")
        self.encoder: ClipEncoder = load_clip(folder, device=CPU, dtype=torch.float32)
        self.prefix = {"siglip": 0, "metaclip_2": 1, "tipsv2": 3}[family]

    def tokens(self, texts: list[str]) -> Any:
        padding: dict[str, Any] = {"padding": True} if self.family == "metaclip_2" else {"padding": "max_length"}
        return self.tokenizer(texts, max_length=LENGTH, truncation=True, return_tensors="pt", **padding)

    def embed(self, patches: Tensor) -> Tensor:
        """[P, width], before the last norm -> [P, D] by the modules of transformers."""
        vision = self.model.vision_model
        if self.family == "tipsv2":
            return vision.layernorm(patches)
        normed = vision.post_layernorm(patches)
        # A sequence of one patch: the pooling head can attend to nothing else.
        return vision.head(normed[:, None]) if self.family == "siglip" else self.model.visual_projection(normed)


@pytest.fixture(scope="module", params=list(CLASSES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp(request.param))


def pixels(height: int = SIDE, width: int = SIDE) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(2))


def test_tokens_equal_those_of_transformers(case: Case) -> None:
    case.encoder.encode_texts(TEXTS)
    own = case.encoder.text._tokenizer
    assert own is not None
    theirs = case.tokens(TEXTS)
    keep = torch.ones_like(theirs["input_ids"]) if case.family == "siglip" else theirs["attention_mask"]
    expected = [ids[mask.bool()].tolist() for ids, mask in zip(theirs["input_ids"], keep, strict=True)]
    assert [encoding.ids for encoding in own.encode_batch(TEXTS)] == expected


@torch.no_grad()
def test_text_embeddings_equal_those_of_transformers(case: Case) -> None:
    tokens = case.tokens(TEXTS)
    if case.family == "siglip":
        tokens = {"input_ids": tokens["input_ids"]}  # trained without a mask
    expected = F.normalize(case.model.get_text_features(**tokens).pooler_output, dim=-1)
    got = case.encoder.encode_texts(TEXTS)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
    assert (got @ got.T - torch.eye(len(TEXTS))).max() < 0.999  # they differ, or the comparison would show nothing


@torch.no_grad()
@pytest.mark.parametrize("size", [(SIDE, SIDE), (48, 96)])
def test_hidden_states_and_image_embeddings_equal_those_of_transformers(case: Case, size: tuple[int, int]) -> None:
    if case.family == "metaclip_2" and size != (SIDE, SIDE):
        pytest.skip("the method resizes CLIP's position table bilinearly, transformers bicubically")
    options = {"interpolate_pos_encoding": True} if case.family == "siglip" else {}
    expected = case.model.vision_model(pixels(*size), output_hidden_states=True, **options)
    for layer in range(1, case.encoder.num_layers + 1):
        theirs = expected.hidden_states[layer][:, case.prefix :]
        difference = (case.encoder.patch_features(pixels(*size), layer) - theirs).norm()
        assert difference <= TOLERANCE * theirs.norm()
    whole = F.normalize(case.model.get_image_features(pixels(*size), **options).pooler_output, dim=-1)
    found = case.encoder.encode_images(
        pixels(*size), recipe=RECIPES["conference"], attention="fused", layers=[2], whole_image=True
    )
    got = torch.stack([one.image_embedding for one in found if one.image_embedding is not None])
    torch.testing.assert_close(got, whole, atol=TOLERANCE, rtol=0)


def plain_fusion(case: Case, image: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings [L, P, D] and affinity [P, P] as docs/method.md, section 2, states them, by transformers' modules."""
    vision = case.model.vision_model
    vision.config._attn_implementation = "eager"
    output = vision(image[None], output_hidden_states=True, output_attentions=True)
    tipsv2 = case.family == "tipsv2"
    layers = vision.encoder.layer if tipsv2 else vision.encoder.layers
    norms = [layer.norm1 if tipsv2 else layer.layer_norm1 for layer in layers]
    last = layers[-1].attention if tipsv2 else layers[-1].self_attn
    states = output.hidden_states[: len(layers)]
    features = [norm(x) for norm, x in zip(norms[:-1], states, strict=False)] + [states[-1]]
    total = torch.stack(output.attentions[:-1]).sum(0)[0]  # [H, N, N]
    embeddings = []
    for feature in features:
        total = total / total.sum(-2, keepdim=True)
        total = total / total.sum(-1, keepdim=True)
        fused = (total + total.mT) / 2
        fused = (fused - fused.mean(-2, keepdim=True)).clamp_min(0)
        fused = fused / fused.sum(-1, keepdim=True)
        value = last.v_proj(norms[-1](feature))[0].unflatten(-1, (len(total), -1)).transpose(0, 1)
        mixed = (fused @ value).transpose(0, 1).flatten(1)
        y = layers[-1].layer_scale1(last.o_proj(mixed)) if tipsv2 else last.out_proj(mixed)
        embeddings.append(F.normalize(case.embed(y[case.prefix :]), dim=-1))
    return torch.stack(embeddings), fused.mean(0)[case.prefix :, case.prefix :]


@torch.no_grad()
def test_early_layer_fusion_equals_plain_code(case: Case) -> None:
    image = pixels()[0]
    expected, affinity = plain_fusion(case, image)
    [found] = case.encoder.encode_images(image[None], recipe=RECIPES["conference"], attention="fused", layers=range(3))
    torch.testing.assert_close(found.embeddings, expected, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(found.affinity, affinity, atol=TOLERANCE, rtol=0)
    assert affinity.std() > 0.01  # attention is not uniform


@pytest.mark.parametrize("attention", ["vanilla", "q-q", "k-k", "v-v", "identity", "own"])
@pytest.mark.parametrize("context", [False, True])
def test_every_attention_runs_with_and_without_windows(case: Case, attention: str, context: bool) -> None:
    def own(images: Tensor, grid: tuple[int, int]) -> Tensor:
        return torch.eye(grid[0] * grid[1]).expand(len(images), -1, -1)

    chosen: Any = own if attention == "own" else attention
    [found] = case.encoder.encode_images(
        pixels(112, 224)[:1],
        recipe=RECIPES["conference"],
        attention=chosen,
        layers=range(3),
        window=112,
        window_context=context,
    )
    assert found.embeddings.shape == (3, 98, case.encoder.embedding_width)
    assert found.affinity.shape == (98, 98)
    assert found.window_embeddings is not None
    assert found.window_embeddings.isfinite().all()


def test_image_is_segmented_with_the_settings_of_the_family(case: Case) -> None:
    checkpoint = resolve(case.folder, "clip")
    names = {"siglip": "siglip2-b-16", "metaclip_2": "metaclip2-b-16", "tipsv2": "tipsv2-b-14"}
    assert recommended_settings(checkpoint) == load_preset(f"{names[case.family]}/voc21").settings
    assert verify_checkpoint(case.folder).problems == []
    segmenter = cliper.Segmenter.from_pretrained(case.folder, refiner="self", device="cpu")
    short = segmenter.with_settings(segmenter.settings.replace(size=64, templates=("{}",)))
    assert short(Image.new("RGB", (96, 64), "red"), "dog; cat").labels.shape == (64, 96)


def test_defaults_of_a_configuration_are_those_of_transformers(case: Case) -> None:
    own = CONFIGS[case.family].from_dict({"model_type": case.family})
    theirs = getattr(transformers, CLASSES[case.family][0])()
    for mine, their in ((own.text, theirs.text_config), (own.vision, theirs.vision_config)):
        names = vars(mine).keys() - {"eos_token_id"} - ({"intermediate_size"} if case.family == "tipsv2" else set())
        assert {name: getattr(their, name) for name in names} == {name: getattr(mine, name) for name in names}


# --- what is refused -------------------------------------------------------------------------------------


def test_text_of_too_many_tokens_is_refused(case: Case) -> None:
    with pytest.raises(ClassListError, match=f"expected a text of at most {LENGTH} tokens"):
        case.encoder.encode_texts(["x" * 30])


def test_missing_tokenizer_is_named(case: Case, tmp_path: Path) -> None:
    rules = CONFIGS[case.family].text_class.tokenizer
    with pytest.raises(CheckpointError, match=r"expected tokenizer.json beside the weights, found none"):
        load_tokenizer(tmp_path, rules)


def test_tokenizer_of_a_larger_vocabulary_is_refused(case: Case, tmp_path: Path) -> None:
    shutil.copytree(case.folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    content["added_tokens"].append({"id": len(PIECES) + 5, "content": "zebra", **flags})
    path.write_text(json.dumps(content))
    tokenizer = load_tokenizer(tmp_path, "file")
    encoder = load_clip(tmp_path, device=CPU, dtype=torch.float32)
    encoder.encode_texts(["dog"])
    largest = max(tokenizer.encode("zebra").ids)
    encoder.text._token_embedding = encoder.text._token_embedding[:largest]
    with pytest.raises(CheckpointError, match=f"at most {largest} tokens, got token {largest}; it is that of another"):
        encoder.encode_texts(["zebra"])


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("vision_config", {"use_swiglu_ffn": True}, "expected use_swiglu_ffn false"),
        ("text_config", {"scale_sqrt_depth": False}, "scale_sqrt_depth true"),
        ("vision_config", {"mlp_ratio": "4"}, "vision_config.mlp_ratio: expected a number from 0 to 100, got '4'"),
        ("vision_config", {"num_register_tokens": 0}, "num_register_tokens: expected a whole number above 0"),
    ],
)
def test_other_forms_of_tipsv2_are_refused(section: str, values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CONFIGS["tipsv2"].from_dict({section: values})


def test_siglip_of_variable_resolution_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip2"}))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match="got 'siglip2'"):
        check_folder(tmp_path, "clip")


def test_first_siglip_leaves_out_punctuation(tmp_path: Path) -> None:
    save_tokenizer("siglip", tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "SiglipTokenizer"}))
    tokenizer = load_tokenizer(tmp_path, "lowercase")
    assert tokenizer.encode(" A dog,  cat! ").ids == tokenizer.encode("a dog cat").ids
