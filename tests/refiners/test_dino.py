"""DINO, DINOv2 and DINOv3 as refiners, beside the plain formula."""

import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel

from cliper.errors import CheckpointError, RefinerError, ResourceError, SettingsError, ShapeError
from cliper.ops.position_embedding import interpolate_dino_positions
from cliper.refiners import load_refiner
from cliper.refiners.affinity import propagate
from cliper.refiners.dino import DinoRefiner
from cliper.settings import Settings
from oracle import dino as oracle

# float32 sums of up to a few hundred terms in another order.
TOLERANCE = 1e-5


def plain(features: Tensor, maps: Tensor, grid: tuple[int, int], subtracted: float = 1.2, sharpness: float = 3.0):
    unit = features / features.norm(dim=-1, keepdim=True)
    q = unit @ unit.T
    q = (q - subtracted * q.mean()) * sharpness
    q[q < 0] = -torch.inf
    x = F.interpolate(maps[None], size=grid, mode="bilinear", align_corners=False)[0].flatten(1)
    return (q.softmax(-1) @ x.T).T.reshape(-1, *grid)


@torch.no_grad()
def plain_refine(folder: Path, kind: str, image: Tensor, maps: Tensor, size: tuple[int, int]) -> Tensor:
    model = AutoModel.from_pretrained(folder).eval()
    if kind == "dino":
        return oracle.refine(model, image, maps, size)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    pixels = (F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0] - mean) / std
    if kind == "dinov3":  # class token and four registers before the patches
        return plain(model(pixel_values=pixels[None]).last_hidden_state[0, 5:], maps, (size[0] // 8, size[1] // 8))
    table = oracle.position_table(model.embeddings.position_embeddings[0], (size[0] // 8, size[1] // 8))
    model.embeddings.interpolate_pos_encoding = lambda *_: table[None]
    hidden = model(pixel_values=pixels[None]).last_hidden_state
    return plain(hidden[0, 1:], maps, (size[0] // 8, size[1] // 8))


# The second image has 130x70 pixels: 16.25 and 8.75 patches, both rounded down.
SIZES = ((96, 144), (128, 64))


@pytest.mark.parametrize("kind", ["dino", "dinov2", "dinov3"])
def test_equals_the_plain_formula(dinos: dict[str, Path], images: list[Tensor], maps: list[Tensor], kind: str) -> None:
    refiner = load_refiner(dinos[kind], device="cpu")
    assert isinstance(refiner, DinoRefiner)
    refined = refiner.refine(images, maps, Settings())
    for image, stack, ours, size in zip(images, maps, refined, SIZES, strict=True):
        expected = plain_refine(dinos[kind], kind, image, stack, size)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)
    again = refiner.refine(images[1:], maps[1:], Settings(refine_mode="mean"), seed=9)[0]
    assert torch.equal(again, refined[1])
    given = refiner.refine(images[:1], maps[:1], Settings(refine_size=(64, 80)))[0]
    expected = plain_refine(dinos[kind], kind, images[0], maps[0], (64, 80))
    torch.testing.assert_close(given, expected, atol=TOLERANCE, rtol=0)


# The oracle resizes in float64; float32 sampling positions near 100 are off by 1e-5, times differences of about 1.
@pytest.mark.parametrize(
    ("side", "grid"), [(14, (14, 14)), (14, (20, 31)), (14, (37, 14)), (28, (28, 41)), (28, (62, 125)), (6, (1, 1))]
)
def test_position_table_is_that_of_the_code_of_dino(side: int, grid: tuple[int, int]) -> None:
    table = torch.randn(1 + side**2, 8, generator=torch.Generator().manual_seed(side))
    got = interpolate_dino_positions(table, grid)
    assert got.shape == (1 + grid[0] * grid[1], 8)
    torch.testing.assert_close(got, oracle.position_table(table, grid), atol=3e-5, rtol=0)
    if grid == (side, side):
        assert torch.equal(got, table)
    else:  # the offset of 0.1 is no rounding
        plain_resize = oracle.position_table(table, grid, offset=0)
        assert (got - plain_resize).abs().max() > 0.1


def test_position_table_must_be_square() -> None:
    with pytest.raises(ShapeError, match=r"expected s \* s rows for the patches, got 50"):
        interpolate_dino_positions(torch.ones(51, 4), (7, 7))


def test_position_table_of_the_code_of_dino_reaches_the_result(
    dinos: dict[str, Path], images: list[Tensor], maps: list[Tensor]
) -> None:
    """transformers' own resize of the table gives other maps, by far more than the tolerance of the parity test."""
    ours = load_refiner(dinos["dino"], device="cpu").refine(images[:1], maps[:1], Settings())[0]
    model = AutoModel.from_pretrained(dinos["dino"]).eval()
    without_offset = oracle.refine(model, images[0], maps[0], SIZES[0], offset=0)
    assert (ours - without_offset).abs().max() > 10 * TOLERANCE


def test_half_precision_resizes_the_position_table_in_float32(dinos: dict[str, Path]) -> None:
    refiner = load_refiner(dinos["dino"], device="cpu", dtype=torch.bfloat16)
    embeddings = refiner.model.embeddings
    table = embeddings.position_embeddings[0].float()
    got = embeddings.interpolate_pos_encoding(torch.empty(1, 1 + 8 * 5, 24), 64, 40)
    assert torch.equal(got[0], interpolate_dino_positions(table, (8, 5)).bfloat16())


def test_images_of_any_size_are_not_reduced(dinos: dict[str, Path]) -> None:
    refiner = load_refiner(dinos["dino"], device="cpu")
    [refined] = refiner.refine([torch.rand(3, 523, 663)], [torch.rand(2, 5, 5)], Settings())
    assert refined.shape == (2, 65, 82)  # 5330 patches
    [refined] = refiner.refine([torch.rand(3, 3, 15)], [torch.rand(2, 5, 5)], Settings())
    assert refined.shape == (2, 1, 1)  # at least one patch


@pytest.mark.parametrize(
    ("shape", "max_patches", "grid"),
    [
        ((320, 160), 100, (14, 7)),
        ((320, 160), 800, (40, 20)),
        ((327, 167), 800, (40, 20)),
        ((8, 80), 1, (1, 1)),
        ((80000, 8), 50, (50, 1)),
    ],
)
def test_refine_max_patches_reduces_larger_images(
    dinos: dict[str, Path], shape: tuple[int, int], max_patches: int, grid: tuple[int, int]
) -> None:
    refiner = load_refiner(dinos["dinov2"], device="cpu")
    settings = Settings(refine_max_patches=max_patches)
    [refined] = refiner.refine([torch.rand(3, *shape)], [torch.rand(2, 5, 5)], settings)
    assert refined.shape == (2, *grid)


def test_bilinear_unless_the_settings_say_otherwise(
    dinos: dict[str, Path], images: list[Tensor], maps: list[Tensor]
) -> None:
    refiner = load_refiner(dinos["dino"], device="cpu")

    def refine(**settings: str) -> Tensor:
        return refiner.refine(images[1:], maps[1:], Settings(**settings))[0]

    assert torch.equal(refine(), refine(refine_resize="bilinear"))
    assert not torch.equal(refine(), refine(refine_resize="nearest"))


@pytest.mark.parametrize(("subtracted", "sharpness"), [(1.2, 3.0), (0.5, 10.0)])
def test_affinity(monkeypatch: pytest.MonkeyPatch, subtracted: float, sharpness: float) -> None:
    monkeypatch.setattr("cliper.refiners.affinity._BLOCK", 500)  # several blocks, the last one shorter
    features, maps = torch.randn(99, 16) + 0.5, torch.rand(3, 5, 5)
    before = features.clone(), maps.clone()
    expected = plain(features, maps, (9, 11), subtracted, sharpness)
    got = propagate(maps, features, (9, 11), mean_weight=subtracted, inverse_temperature=sharpness)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
    assert torch.equal(features, before[0])
    assert torch.equal(maps, before[1])
    half = propagate(maps, features.bfloat16(), (9, 11))
    assert half.dtype == torch.float32


def test_identical_patches_get_the_mean() -> None:
    """Nothing is above 1.2 times the mean: every patch gets the mean of the maps, and not NaN."""
    maps = torch.rand(2, 4, 4)
    got = propagate(maps, torch.ones(16, 8), (4, 4))
    torch.testing.assert_close(got, maps.mean((1, 2), keepdim=True).expand(2, 4, 4), atol=TOLERANCE, rtol=0)


def test_bad_input(dinos: dict[str, Path], images: list[Tensor], maps: list[Tensor], tmp_path: Path) -> None:
    refiner = load_refiner(dinos["dino"], device="cpu")
    with pytest.raises(SettingsError, match="multiples of 8, got 100x100; nearest is 96x96"):
        refiner.refine(images, maps, Settings(refine_size=100))
    with pytest.raises(ShapeError, match="images"):
        refiner.refine(images, maps[:1], Settings())
    with pytest.raises(ShapeError, match="grid of 3x3"):
        propagate(maps[0], torch.rand(8, 4), (3, 3))

    def fail(*_: object) -> None:
        raise MemoryError

    hook = refiner.model.register_forward_pre_hook(fail)
    with pytest.raises(ResourceError, match="lower refine_size or refine_max_patches"):
        refiner.refine(images, maps, Settings())
    hook.remove()
    refiner.model.layernorm.weight.data[0] = torch.nan
    with pytest.raises(RefinerError, match="NaN"):
        refiner.refine(images, maps, Settings())
    own = Path(shutil.copytree(dinos["dino"], tmp_path / "own"))
    tensors = load_file(own / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "layernorm.weight" not in k}, own / "model.safetensors")
    with pytest.raises(CheckpointError, match="expected every weight"):
        load_refiner(own, device="cpu")
