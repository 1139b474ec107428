import copy
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import yaml

import cliper.checkpoints
from cliper.checkpoints import entries, find_entry
from cliper.checkpoints.registry import entry_of_repo, nearest_aliases, parse, replacement_for
from cliper.errors import CheckpointError
from cliper.settings import load_preset, presets

ALIASES = {
    "clip": ["mini", "ViT-B/16", "ViT-L/14", "ViT-H/14"],
    "diffusion": ["sd2.1", "sd1.5", "sd1.4"],
    "dino": [
        *("dino-s16", "dino-s8", "dino-b16", "dino-b8"),
        *("dinov2-s14", "dinov2-b14", "dinov2-l14", "dinov2-g14"),
    ],
}


@pytest.fixture
def data():
    text = (resources.files("cliper.checkpoints") / "registry.yaml").read_text(encoding="utf-8")
    return copy.deepcopy(yaml.safe_load(text))


def test_all_aliases_are_there():
    assert {kind: [entry.alias for entry in entries(kind)] for kind in ALIASES} == ALIASES
    assert len(entries()) == sum(len(names) for names in ALIASES.values())


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.alias)
def test_every_entry(entry):
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


def test_the_vanished_repositories_have_a_substitute():
    assert replacement_for("stabilityai/Stable-Diffusion-2-1-base") == "sd2.1"
    assert replacement_for("runwayml/stable-diffusion-v1-5") == "sd1.5"
    assert replacement_for("openai/clip-vit-base-patch16") is None
    assert [source.repo.split("/")[0] for source in find_entry("sd2.1").sources] == [
        "sd2-community",
        "Manojb",
    ]


def test_nearest_aliases():
    assert nearest_aliases("vitb16", "clip")[0] == "ViT-B/16"
    assert nearest_aliases("zzz", "diffusion") == ALIASES["diffusion"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["checkpoints"][1].update(extra=1), "unknown key 'extra'"),
        (lambda d: d["checkpoints"][1].pop("licence"), "'licence' is missing"),
        (lambda d: d["checkpoints"][1].update(kind="siglip"), "got 'siglip'"),
        (lambda d: d["checkpoints"][1].update(title=""), "title: expected a text"),
        (lambda d: d["checkpoints"][1].update(megabytes="602"), "megabytes"),
        (lambda d: d["checkpoints"][1].update(recommended=3), "recommended"),
        (lambda d: d["checkpoints"][1].update(sources=[]), "either sources or a bundled"),
        (lambda d: d["checkpoints"][1]["sources"][0].update(revision="main"), "expected a commit"),
        (lambda d: d["checkpoints"][1]["sources"][0].update(repo="clip"), "expected 'owner/name'"),
        (lambda d: d["checkpoints"][1]["sources"][0].update(branch="x"), "unknown key 'branch'"),
        (lambda d: d["checkpoints"][0]["sha256"].update({"config.json": "12"}), "64 hexadecimal"),
        (lambda d: d["checkpoints"].append(d["checkpoints"][1]), "twice"),
        (lambda d: d["replacements"].update({"a/b": "sd9"}), "not an alias"),
        (lambda d: d.pop("replacements"), "'replacements' is missing"),
    ],
)
def test_the_file_is_read_strictly(data, change, words):
    parse(data)
    change(data)
    with pytest.raises(CheckpointError, match=words):
        parse(data)


def test_importing_is_cheap():
    code = (
        "import sys, cliper.checkpoints as c; c.find_entry('mini'); c.resolve('mini', 'clip');"
        "heavy = {'torch', 'transformers', 'diffusers', 'huggingface_hub', 'safetensors'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
