from pathlib import Path

import pytest
import torch
from tiny_models import build_dino, build_pipeline

from cliper.refiners import load_refiner
from cliper.refiners.diffusion import DiffusionRefiner


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny pipelines by name."""
    root = tmp_path_factory.mktemp("pipelines")
    return {kind: build_pipeline(root / kind, kind) for kind in ("sd2.1", "sd1.5")}


@pytest.fixture(scope="session")
def dinos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny ViTs by name."""
    root = tmp_path_factory.mktemp("dinos")
    return {kind: build_dino(root / kind, kind) for kind in ("dino", "dinov2", "dinov3")}


@pytest.fixture
def refiner(pipelines: dict[str, Path]) -> DiffusionRefiner:
    """The tiny pipeline with SD 2.1's architecture."""
    loaded = load_refiner(pipelines["sd2.1"], device="cpu")
    assert isinstance(loaded, DiffusionRefiner)
    return loaded


@pytest.fixture(scope="session")
def images() -> list[torch.Tensor]:
    """Two images of different shape, with structure."""
    return [_image(96, 144, 1), _image(130, 70, 2)]


@pytest.fixture(scope="session")
def maps() -> list[torch.Tensor]:
    """Coarse class maps for each of the images."""
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(shape, generator=generator) for shape in ((3, 6, 9), (2, 8, 4))]


def _image(height: int, width: int, seed: int) -> torch.Tensor:
    coarse = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[0].clamp(0, 1)
