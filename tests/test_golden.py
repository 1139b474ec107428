"""Class maps of the public API equal those of the published implementation."""

from pathlib import Path

import pytest
import torch

import cliper
from golden import digest, image_tower, load_golden, save_golden_clip

# Cosines are exact to about 1e-7 in float32 and are multiplied by a scale of 100 before a softmax, so two orders of
# summation differ by 1e-5 to 5e-5.
TOLERANCE = 1e-4
# Of the ablations, maps of "vanilla" attention reach 22: there 1e-4 is 5e-6 of the value, less than the cosines allow.
RELATIVE = 1e-5

FIRST = {"logit_scale": 100, "map_threshold": 0.1, "select_layer": -1}
SECOND = {"logit_scale": 50, "map_threshold": 0.2, "select_layer": -2}
CASES = {
    "conference.0": FIRST,
    "conference.1": SECOND,
    "conference.2": {**SECOND, "window": 224},
    "preprint": {"recipe": "preprint", "logit_scale": 50, "map_threshold": 0.2, "select_layer": -1},
    **{f"attention.{name}": {**FIRST, "attention": name} for name in ("q-q", "k-k", "v-v", "vanilla", "identity")},
}


# Of the published implementation's run: SHA-256 over the names and bytes of the image tower's tensors.
IMAGE_TOWERS = {
    14: "4509cd1df58a0e5226b8db6762acd8011ce03c656f1337c88470ba8dce524f7c",
    16: "bd67405ef256772e986f8d433e162f7b5161c0062c0192173ec4f347afc30ce9",
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Patch size -> folder of the tiny CLIP that the golden values were computed with."""
    folder = tmp_path_factory.mktemp("golden")
    return {patch: save_golden_clip(patch, folder / f"clip-patch{patch}") for patch in IMAGE_TOWERS}


@pytest.mark.parametrize("patch", IMAGE_TOWERS)
def test_image_tower_equals_that_of_the_published_run_bit_for_bit(patch: int) -> None:
    assert digest(image_tower(patch)) == IMAGE_TOWERS[patch]


@pytest.mark.parametrize("patch", IMAGE_TOWERS)
@pytest.mark.parametrize("case", CASES)
def test_class_maps_equal_those_of_the_published_implementation(
    patch: int, case: str, checkpoints: dict[int, Path]
) -> None:
    golden = load_golden(f"patch{patch}")
    segmenter = cliper.Segmenter.from_pretrained(
        checkpoints[patch], settings=cliper.Settings(**CASES[case]), device="cpu"
    )
    maps = segmenter.class_maps(golden["pixels"], golden["foreground"], golden["background"])
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, golden[case], atol=TOLERANCE, rtol=RELATIVE)


def test_every_golden_map_has_a_case() -> None:
    inputs = {"pixels", "foreground", "background"}
    assert set(load_golden("patch16")) == set(CASES) | inputs
