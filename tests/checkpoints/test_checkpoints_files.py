import pytest

from cliper.checkpoints.files import needed_files

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
    needed = needed_files("clip", [*TOKENIZER, "config.json", *there])
    assert not needed.missing
    assert sorted(needed.files) == sorted([*TOKENIZER, "config.json", *weights])


def test_missing_files_are_named():
    shards = ["model.safetensors.index.json", "model-00001-of-00002.safetensors"]
    assert needed_files("clip", ["config.json", *TOKENIZER, *shards]).missing == ("model-00002-of-00002.safetensors",)
    assert needed_files("clip", ["config.json", *TOKENIZER, shards[0]]).missing == (
        "the weight files that model.safetensors.index.json names",
    )
    assert needed_files("dino", []).missing == ("config.json", "model.safetensors or pytorch_model.bin")
    assert needed_files("clip", ["config.json", "model.safetensors", "vocab.json"]).missing == (
        "tokenizer.json (or vocab.json and merges.txt)",
    )


def test_number_of_shards_is_bounded():
    files = ["config.json", *TOKENIZER, "model.safetensors.index.json", "model-00002-of-99999.safetensors"]
    assert len(needed_files("clip", files).missing) == 99_998
    files[-1] = "model-1-of-9999999999.safetensors"
    assert needed_files("clip", files).missing == ("the weight files that model.safetensors.index.json names",)


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
    needed = needed_files("diffusion", [*PARTS, *wanted, *unwanted])
    assert not needed.missing
    assert sorted(needed.files) == sorted([*PARTS, *wanted])
    without = needed_files("diffusion", [*PARTS[1:], *wanted[:2], *unwanted])
    assert without.missing == (
        "model_index.json",
        "vae/diffusion_pytorch_model.safetensors or diffusion_pytorch_model.bin",
    )
