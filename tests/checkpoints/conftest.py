"""Tiny checkpoints made by the libraries themselves, and a fake hub that fills a real cache."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors


class FakeHub:
    """Repositories in memory; downloads go into ``cache`` as huggingface_hub would lay them out."""

    def __init__(self, cache: Path, local_lookup) -> None:
        self.cache = cache
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.errors: dict[str, BaseException] = {}
        self.download_error: BaseException | None = None
        self.model_types: dict[str, str] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.fetched: list[tuple[str, str]] = []
        self.keep_listing = True
        self._local_lookup = local_lookup

    @staticmethod
    def error(cls: type[Exception], status: int = 404) -> Exception:
        return cls("made by a test", response=SimpleNamespace(headers={}, request=None, status_code=status))

    def add(self, repo: str, files: list[str], commit: str = "a" * 40) -> None:
        """Add a commit; the last one added is main."""
        self.repos.setdefault(repo, {})[commit] = {name: f"{repo}:{name}".encode() for name in files}

    def model_info(self, repo, *, revision=None, timeout=None):
        self.asked.append((repo, revision))
        assert timeout is not None
        assert timeout <= 10
        if repo in self.errors:
            raise self.errors[repo]
        commit = self._commit(repo, revision)
        siblings = [SimpleNamespace(rfilename=name) for name in self.repos[repo][commit]]
        config = {"model_type": self.model_types[repo]} if repo in self.model_types else None
        return SimpleNamespace(sha=commit, siblings=siblings, config=config)

    def snapshot_download(self, repo, *, revision=None, allow_patterns=None, local_files_only=False):
        if local_files_only:
            return self._local_lookup(repo, revision=revision, allow_patterns=allow_patterns, local_files_only=True)
        commit = self._commit(repo, revision)
        home = self.cache / f"models--{repo.replace('/', '--')}"
        folder = home / "snapshots" / commit
        for name, content in self.repos[repo][commit].items():
            if name not in allow_patterns:
                continue
            if self.download_error is not None and ".safetensors" in name:
                raise self.download_error
            blob = home / "blobs" / hashlib.sha256(content).hexdigest()
            link = folder / name
            if link.exists():
                continue
            for item in (blob, link):
                item.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(content)
            link.symlink_to(blob)
            self.fetched.append((repo, name))
        if revision != commit:
            (home / "refs").mkdir(exist_ok=True)
            (home / "refs" / (revision or "main")).write_text(commit)
        return str(folder)

    def get_cached_repo_tree(self, repo, *, revision=None):
        if not self.keep_listing or revision not in self.repos.get(repo, {}):
            # It came with huggingface_hub 2.
            raise getattr(errors, "CachedRepoTreeNotFoundError", OSError)("made by a test")
        return [SimpleNamespace(path=name) for name in self.repos[repo][revision]]

    def _commit(self, repo: str, revision: str | None) -> str:
        if repo not in self.repos:
            raise self.error(errors.RepositoryNotFoundError, 401)
        commits = self.repos[repo]
        if revision in (None, "main"):
            return list(commits)[-1]
        if revision not in commits:
            raise self.error(errors.RevisionNotFoundError)
        return revision


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty hub and an empty cache."""
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    fake = FakeHub(cache, huggingface_hub.snapshot_download)
    for name in ("model_info", "snapshot_download", "get_cached_repo_tree"):
        monkeypatch.setattr(huggingface_hub, name, getattr(fake, name), raising=False)
    return fake


@pytest.fixture(scope="session")
def _tiny_clip(tmp_path_factory):
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **sizes,
            "vocab_size": 100,
            "bos_token_id": 98,
            "eos_token_id": 99,
            "projection_dim": 16,
        },
        vision_config={**sizes, "image_size": 32, "patch_size": 16, "projection_dim": 16},
        projection_dim=16,
    )
    folder = tmp_path_factory.mktemp("clip")
    CLIPModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_clip(_tiny_clip, tmp_path):
    """The folder of a tiny CLIP without a tokenizer, for a test to change."""
    return Path(shutil.copytree(_tiny_clip, tmp_path / "tiny-clip"))


@pytest.fixture(scope="session")
def _tiny_pipeline(tmp_path_factory):
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = tmp_path_factory.mktemp("pipeline")
    UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(folder / "vae")
    text = CLIPTextConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=100,
        bos_token_id=98,
        eos_token_id=99,
    )
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    DDIMScheduler().save_pretrained(folder / "scheduler")
    (folder / "tokenizer").mkdir()
    for name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).write_text("{}")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


@pytest.fixture
def tiny_pipeline(_tiny_pipeline, tmp_path):
    """The folder of a tiny Stable Diffusion, for a test to change."""
    return Path(shutil.copytree(_tiny_pipeline, tmp_path / "tiny-pipeline"))
