import pytest

from cliper.checkpoints.validate import needed_files

TOKENIZER = ["merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json"]
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
    files, missing = needed_files("clip", [*TOKENIZER, "config.json", *there])
    assert not missing
    assert sorted(files) == sorted([*TOKENIZER, "config.json", *weights])


def missing_files(kind, *names):
    return needed_files(kind, names)[1]


def test_missing_files_are_named():
    index = "model.safetensors.index.json"
    assert missing_files("clip", "config.json", *TOKENIZER, index, "model-00001-of-00002.safetensors") == [
        f"complete set of shards for {index} (found 1)"
    ]
    assert missing_files("clip", "config.json", *TOKENIZER, index) == [f"complete set of shards for {index} (found 0)"]
    assert missing_files("dino") == ["config.json", "model.safetensors or pytorch_model.bin"]
    assert missing_files("clip", "config.json", "model.safetensors", "vocab.json") == [
        "tokenizer.json (or vocab.json and merges.txt)"
    ]


def test_enormous_number_of_shards_is_not_complete():
    index = "model.safetensors.index.json"
    for total in ("99999", "9999999999", "9" * 200):
        names = ["config.json", *TOKENIZER, index, f"model-1-of-{total}.safetensors"]
        assert missing_files("clip", *names) == [f"complete set of shards for {index} (found 1)"]


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
    files, missing = needed_files("diffusion", [*PARTS, *wanted, *unwanted])
    assert not missing
    assert sorted(files) == sorted([*PARTS, *wanted])
    assert missing_files("diffusion", *PARTS[1:], *wanted[:2], *unwanted) == [
        "model_index.json",
        "vae/diffusion_pytorch_model.safetensors or diffusion_pytorch_model.bin "
        "(found diffusion_pytorch_model.fp16.bin)",
    ]
