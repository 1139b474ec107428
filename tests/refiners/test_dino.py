"""DINO and DINOv2 as refiners, beside the plain formula."""

import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel

from cliper.errors import CheckpointError, RefinerError, ResourceError, SettingsError, ShapeError
from cliper.ops.positions import interpolate_dino_positions
from cliper.refiners import load_refiner
from cliper.refiners.affinity import spread_by_affinity
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
def plain_refine(folder: Path, kind: str, picture: Tensor, maps: Tensor, size: tuple[int, int]) -> Tensor:
    model = AutoModel.from_pretrained(folder).eval()
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    pixels = (F.interpolate(picture[None], size=size)[0] - mean) / std
    if kind == "dino":
        grid = (size[0] // 8, size[1] // 8)
        table = oracle.position_table(model.embeddings.position_embeddings[0], grid)
        model.embeddings.interpolate_pos_encoding = lambda *_: table[None]
    fit = {"interpolate_pos_encoding": True} if kind == "dino" else {}
    hidden = model(pixel_values=pixels[None], **fit).last_hidden_state
    return plain(hidden[0, 1:], maps, (size[0] // 8, size[1] // 8))


@pytest.mark.parametrize("kind", ["dino", "dinov2"])
def test_equals_the_plain_formula(
    dinos: dict[str, Path], pictures: list[Tensor], maps: list[Tensor], kind: str
) -> None:
    refiner = load_refiner(dinos[kind], device="cpu")
    assert isinstance(refiner, DinoRefiner)
    refined = refiner.refine(pictures, maps, Settings())
    for picture, stack, ours, size in zip(pictures, maps, refined, ((96, 144), (128, 72)), strict=True):
        expected = plain_refine(dinos[kind], kind, picture, stack, size)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)
    again = refiner.refine(pictures[1:], maps[1:], Settings(refine_mode="mean"), seed=9)[0]
    assert torch.equal(again, refined[1])
    given = refiner.refine(pictures[:1], maps[:1], Settings(refine_size=(64, 80)))[0]
    expected = plain_refine(dinos[kind], kind, pictures[0], maps[0], (64, 80))
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
    with pytest.raises(ShapeError, match="expected 1 \\+ s \\* s rows, got 51"):
        interpolate_dino_positions(torch.ones(51, 4), (7, 7))


def test_large_pictures_are_reduced(dinos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cliper.refiners.dino.MOST_PATCHES", 100)
    refiner = load_refiner(dinos["dinov2"], device="cpu")
    [refined] = refiner.refine([torch.rand(3, 320, 160)], [torch.rand(2, 5, 5)], Settings())
    assert refined.shape == (2, 14, 7)
    [refined] = refiner.refine([torch.rand(3, 3, 5)], [torch.rand(2, 5, 5)], Settings())
    assert refined.shape == (2, 1, 1)


@pytest.mark.parametrize(("subtracted", "sharpness"), [(1.2, 3.0), (0.5, 10.0)])
def test_affinity(monkeypatch: pytest.MonkeyPatch, subtracted: float, sharpness: float) -> None:
    monkeypatch.setattr("cliper.refiners.affinity._BLOCK", 500)  # several blocks, the last one shorter
    features, maps = torch.randn(99, 16) + 0.5, torch.rand(3, 5, 5)
    before = features.clone(), maps.clone()
    expected = plain(features, maps, (9, 11), subtracted, sharpness)
    got = spread_by_affinity(maps, features, (9, 11), subtracted=subtracted, sharpness=sharpness)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
    assert torch.equal(features, before[0])
    assert torch.equal(maps, before[1])
    half = spread_by_affinity(maps, features.bfloat16(), (9, 11))
    assert half.dtype == torch.float32


def test_patches_that_are_all_alike() -> None:
    """Nothing is above 1.2 times the mean: every patch gets the mean of the maps, and not NaN."""
    maps = torch.rand(2, 4, 4)
    got = spread_by_affinity(maps, torch.ones(16, 8), (4, 4))
    torch.testing.assert_close(got, maps.mean((1, 2), keepdim=True).expand(2, 4, 4), atol=TOLERANCE, rtol=0)


def test_bad_input(dinos: dict[str, Path], pictures: list[Tensor], maps: list[Tensor], tmp_path: Path) -> None:
    refiner = load_refiner(dinos["dino"], device="cpu")
    with pytest.raises(SettingsError, match="multiples of 8, got 100x100; nearest is 96x96"):
        refiner.refine(pictures, maps, Settings(refine_size=100))
    with pytest.raises(ShapeError, match="pictures"):
        refiner.refine(pictures, maps[:1], Settings())
    with pytest.raises(ShapeError, match="grid of 3x3"):
        spread_by_affinity(maps[0], torch.rand(8, 4), (3, 3))

    def fail(*_: object) -> None:
        raise MemoryError

    hook = refiner.model.register_forward_pre_hook(fail)
    with pytest.raises(ResourceError, match="lower refine_size"):
        refiner.refine(pictures, maps, Settings())
    hook.remove()
    refiner.model.layernorm.weight.data[0] = torch.nan
    with pytest.raises(RefinerError, match="NaN"):
        refiner.refine(pictures, maps, Settings())
    own = Path(shutil.copytree(dinos["dino"], tmp_path / "own"))
    tensors = load_file(own / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "layernorm.weight" not in k}, own / "model.safetensors")
    with pytest.raises(CheckpointError, match="weights are missing"):
        load_refiner(own, device="cpu")
