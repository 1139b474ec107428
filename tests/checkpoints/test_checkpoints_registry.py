import dataclasses
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import yaml

import cliper.checkpoints
from cliper.checkpoints import entries, find_entry
from cliper.checkpoints.registry import KINDS, RegistryEntry, entry_of_repo, nearest_aliases, replacement_for
from cliper.settings import load_preset, presets

ALIASES = {
    "clip": ["mini", "ViT-B/16", "ViT-L/14", "ViT-H/14", "SigLIP2-B/16", "MetaCLIP2-B/16", "TIPSv2-B/14"],
    "diffusion": ["sd2.1", "sd1.5", "sd1.4", "sdxl"],
    "dino": [
        *("dino-s16", "dino-s8", "dino-b16", "dino-b8"),
        *("dinov2-s14", "dinov2-b14", "dinov2-l14", "dinov2-g14"),
        *("dinov3-s16", "dinov3-b16", "dinov3-l16"),
    ],
    "vae": ["taesd"],
}


@pytest.fixture
def data():
    text = (resources.files("cliper.checkpoints") / "registry.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def test_all_aliases_exist():
    assert {kind: [entry.alias for entry in entries(kind)] for kind in ALIASES} == ALIASES
    assert len(entries()) == sum(len(names) for names in ALIASES.values())


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.alias)
def test_entry_is_found_and_complete(entry):
    assert find_entry(f" {entry.alias.upper()} ") is entry
    assert entry.note.endswith(".")
    if entry.bundled:
        folder = Path(cliper.checkpoints.__file__).parent / entry.bundled
        assert set(entry.sha256) == {path.name for path in folder.iterdir()} - {"README.md"}
        assert (folder / entry.recommended).is_file()
        assert "not OpenAI's CLIP" in entry.note
        return
    assert all(entry_of_repo(source.repo) is entry for source in entry.sources)
    if entry.kind == "clip":
        assert entry.recommended in presets()
        assert load_preset(entry.recommended).model == entry.alias
    else:
        assert entry.recommended is None


def test_deleted_repositories_have_a_replacement():
    assert replacement_for("stabilityai/Stable-Diffusion-2-1-base") == "sd2.1"
    assert replacement_for("runwayml/stable-diffusion-v1-5") == "sd1.5"
    assert replacement_for("openai/clip-vit-base-patch16") is None
    assert [source.repo.split("/")[0] for source in find_entry("sd2.1").sources] == [
        "sd2-community",
        "Manojb",
    ]


def test_nearest_aliases_are_similar_or_all():
    assert nearest_aliases("vitb16", "clip")[0] == "ViT-B/16"
    assert nearest_aliases("zzz", "diffusion") == ALIASES["diffusion"]


def test_form_of_the_registry_file(data):
    assert set(data) == {"checkpoints", "replacements"}
    keys = {field.name for field in dataclasses.fields(RegistryEntry)}
    aliases = [item["alias"].lower() for item in data["checkpoints"]]
    assert len(set(aliases)) == len(aliases)
    for item in data["checkpoints"]:
        assert keys - {"bundled", "sha256"} <= set(item) <= keys, item["alias"]
        assert all(isinstance(item[name], str) and item[name] for name in ("alias", "title", "licence", "note"))
        assert item["kind"] in KINDS
        assert type(item["megabytes"]) is int
        assert item["megabytes"] > 0
        assert bool(item["sources"]) != bool(item.get("bundled")), "either sources or a bundled folder"
        for source in item["sources"]:
            assert set(source) == {"repo", "revision"}
            assert re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source["repo"])
            assert source["revision"] is None or re.fullmatch(r"[0-9a-f]{40}", source["revision"])
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in item.get("sha256", {}).values())
    for repo, alias in data["replacements"].items():
        assert repo == repo.lower(), "look-ups ignore case"
        assert alias.lower() in aliases


def test_importing_is_cheap():
    code = (
        "import sys, cliper.checkpoints as c; c.find_entry('mini'); c.resolve('mini', 'clip');"
        "heavy = {'torch', 'transformers', 'diffusers', 'huggingface_hub', 'safetensors'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
