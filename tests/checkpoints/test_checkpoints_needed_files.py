import pytest

from cliper.checkpoints.validate import needed_files
from cliper.errors import CheckpointError

TOKENIZER = ["merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json"]
INDEX = "model.safetensors.index.json"
PARTS = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "text_encoder/config.json",
    "unet/config.json",
    "vae/config.json",
]


@pytest.mark.parametrize(
    ("there", "weights"),
    [
        (
            ["model.safetensors", "pytorch_model.bin", "tf_model.h5", "open_clip_model.safetensors"],
            ["model.safetensors"],
        ),
        (["pytorch_model.bin", "flax_model.msgpack", "README.md"], ["pytorch_model.bin"]),
        (
            [
                "model.safetensors.index.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "pytorch_model.bin",
            ],
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ],
        ),
    ],
)
def test_clip_needs_one_set_of_weights(there, weights):
    files = needed_files("folder", "clip", [*TOKENIZER, "config.json", *there])
    assert sorted(files) == sorted([*TOKENIZER, "config.json", *weights])


def refusal(kind, *names):
    with pytest.raises(CheckpointError) as caught:
        needed_files("folder", kind, names, tokenizer=True)
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ([INDEX, "model-00001-of-00002.safetensors"], f"complete set of shards for {INDEX} (found 1)"),
        ([INDEX], f"complete set of shards for {INDEX} (found 0)"),
        ([INDEX, "model-1-of-99999.safetensors"], f"complete set of shards for {INDEX} (found 1)"),
        ([INDEX, "model-1-of-9999999999.safetensors"], f"complete set of shards for {INDEX} (found 1)"),
        ([INDEX, f"model-1-of-{'9' * 200}.safetensors"], f"complete set of shards for {INDEX} (found 1)"),
    ],
)
def test_missing_shards_are_named(names, missing):
    expected = f"folder: expected a CLIP checkpoint, got no {missing}; give a complete one"
    assert refusal("clip", "config.json", *TOKENIZER, *names) == expected


def test_missing_files_are_named():
    assert "got no config.json, no model.safetensors or pytorch_model.bin;" in refusal("dino")
    names = ["config.json", "model.safetensors", "vocab.json"]
    assert "got no tokenizer.json (or vocab.json and merges.txt);" in refusal("clip", *names)
    assert needed_files("folder", "clip", names) == ["config.json", "model.safetensors", "vocab.json"]


def test_pipeline_needs_full_precision_weights_of_its_parts_only():
    wanted = [
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.bin",
    ]
    unwanted = [
        "v1-5-pruned.ckpt",
        "v1-5-pruned-emaonly.safetensors",
        "safety_checker/model.safetensors",
        "feature_extractor/preprocessor_config.json",
        "text_encoder/pytorch_model.bin",
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "vae/diffusion_pytorch_model.fp16.bin",
    ]
    files = needed_files("folder", "diffusion", [*PARTS, *wanted, *unwanted])
    assert sorted(files) == sorted([*PARTS, *wanted])
    assert (
        "got no model_index.json, no vae/diffusion_pytorch_model.safetensors or diffusion_pytorch_model.bin "
        "(found diffusion_pytorch_model.fp16.bin);"
    ) in refusal("diffusion", *PARTS[1:], *wanted[:2], *unwanted)


def test_layout_of_open_clip_is_used_where_there_is_no_configuration_of_transformers():
    open_clip = [
        "open_clip_config.json",
        "open_clip_pytorch_model.bin",
        "open_clip_model.safetensors",
        "tokenizer.json",
    ]
    assert needed_files("repo", "clip", open_clip) == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "tokenizer.json",
    ]
    both = [*open_clip, "config.json", "pytorch_model.bin"]
    assert needed_files("repo", "clip", both) == ["config.json", "pytorch_model.bin", "tokenizer.json"]
