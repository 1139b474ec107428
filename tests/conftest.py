"""Fixtures for all tests: tiny checkpoints, small images, the command line, and a cache folder for each test."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cliper.decode_pool import DecodePool

MINI = Path(__file__).parents[1] / "src" / "cliper" / "checkpoints" / "mini"

# For a tiny random CLIP: a small input size, and thresholds that give several labels in an image.
TINY_SETTINGS = {
    "size": 64,
    "logit_scale": 30,
    "score_threshold": 0.05,
    "background_threshold": 0.3,
    "background_similarity": 1,  # embeddings of random weights are close to each other
    "templates": ["a photo of a {}."],
}


@pytest.fixture(scope="session", autouse=True)
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Path]]:
    """Cache folders: one for the fixtures of the session, then one for each test."""
    home = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPER_CACHE", str(home / "session"))
        yield (home / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def own_cache(_caches: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test; it does not exist yet."""
    folder = next(_caches)
    monkeypatch.setenv("CLIPER_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def pool() -> Iterator[DecodePool]:
    """A decoding process."""
    with DecodePool(1) as pool:
        yield pool


def save_clip(folder: Path, *, seed: int = 1, patch: int = 16, layers: int = 3, tokenizer: bool = True) -> Path:
    """A tiny random CLIP in ``transformers`` format, its attention far from uniform."""
    from transformers import CLIPConfig, CLIPModel

    from cliper.hf_logging import silence_transformers

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "projection_dim": 24}
    vision = {**sizes, "num_hidden_layers": layers, "image_size": 4 * patch, "patch_size": patch}
    special = {"vocab_size": 16000, "bos_token_id": 15998, "eos_token_id": 15999, "pad_token_id": 15999}
    config = CLIPConfig(
        vision_config=vision, text_config={**sizes, **special, "num_hidden_layers": 2}, projection_dim=24
    )
    with torch.random.fork_rng(devices=[]):
        model = CLIPModel(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        # The library's random initialisation depends on its version, so it is replaced.
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 or name.endswith("class_embedding"):
                gain = 0.02 if "position" in name else 2.0 / parameter.shape[-1] ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * gain)
    with silence_transformers():
        model.save_pretrained(folder)
    (folder / "settings.json").write_text(json.dumps(TINY_SETTINGS))
    if tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(MINI / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP with a tokenizer: 3 layers, patches of 16 pixels, width 24. Not to be changed."""
    return save_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="session")
def clip_without_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a tokenizer. Not to be changed."""
    return save_clip(tmp_path_factory.mktemp("clip") / "wordless", tokenizer=False)


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random DINO: 2 layers, patches of 8 pixels. Not to be changed."""
    from transformers import ViTConfig, ViTModel

    from cliper.hf_logging import silence_transformers

    folder = tmp_path_factory.mktemp("dino") / "tiny"
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    with torch.random.fork_rng(), silence_transformers():
        torch.manual_seed(0)
        config = ViTConfig(image_size=48, patch_size=8, **shape)
        ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture
def own_clip(clip_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny CLIP, to be damaged at will."""
    return Path(shutil.copytree(clip_folder, tmp_path / "own-clip"))


@pytest.fixture(scope="session")
def tiny(clip_folder: Path, _caches: object) -> object:
    """A segmenter of the tiny CLIP."""
    import cliper

    return cliper.Segmenter.from_pretrained(clip_folder, device="cpu")


@pytest.fixture
def own_tiny(clip_folder: Path, own_cache: Path) -> object:
    """The same with the text cache of this test.

    The last bits of an embedding depend on the other texts of its batch. Those in the cache of the session depend on
    the order of the tests.
    """
    import cliper

    return cliper.Segmenter.from_pretrained(clip_folder, device="cpu")


@pytest.fixture(scope="session")
def mini(_caches: object) -> object:
    """A segmenter of the bundled checkpoint."""
    import cliper

    return cliper.Segmenter.from_pretrained(device="cpu")


def draw(width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    """An image of a few coloured rectangles with some noise."""
    random = np.random.default_rng(seed)
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = random.integers(0, 256, 3)
    for _ in range(6):
        top, left = random.integers(0, height), random.integers(0, width)
        pixels[top : top + height // 3 + 1, left : left + width // 3 + 1] = random.integers(0, 256, 3)
    noise = random.integers(-10, 11, pixels.shape)
    return Image.fromarray((pixels.astype(int) + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def make_image() -> Callable[..., Image.Image]:
    """:func:`draw`, for tests."""
    return draw


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A small image on disk, 96 x 64 pixels."""
    path = tmp_path / "photo.png"
    draw().save(path)
    return path


@dataclass(frozen=True)
class Ended:
    """Exit code and output of a command; ``err`` is without the line ``cliper: loading ...``."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run the command line in this process."""
    from cliper.cli.main import run

    def call(*arguments: object) -> Ended:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        lines = printed.err.splitlines(keepends=True)
        return Ended(code, printed.out, "".join(line for line in lines if not line.startswith("cliper: loading ")))

    return call


def files_in(folder: Path) -> Sequence[str]:
    """Names of everything below a folder, hidden files too; empty if there is no folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


@pytest.fixture
def tree() -> Callable[[Path], Sequence[str]]:
    """:func:`files_in`, for tests."""
    return files_in
