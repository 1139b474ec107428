"""Public names and signatures, imports of light modules, docstrings."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import cliper

MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages(cliper.__path__, "cliper.")
    if name != "cliper.__main__"  # it runs the command; tests/cli runs it
)
HEAVY = (
    "torch",
    "transformers",
    "diffusers",
    "numpy",
    "PIL",
    "yaml",
    "click",
    "rich",
    "huggingface_hub",
    "safetensors",
)


def python(code: str, *arguments: str) -> Any:
    """The JSON output of a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- names -----------------------------------------------------------------------------------------------


def test_names_of_the_package() -> None:
    assert sorted(cliper.__all__) == [
        "ClassPrompt",
        "CliperError",
        "EncodedImage",
        "Preset",
        "Segmentation",
        "Segmenter",
        "Settings",
        "errors",
        "evaluation",
        "example_photo",
        "formats",
        "load_preset",
        "ops",
        "presets",
    ]
    assert dir(cliper) == sorted([*cliper.__all__, "__version__"])
    assert all(getattr(cliper, name) is not None for name in cliper.__all__)
    with pytest.raises(AttributeError, match="module 'cliper' has no attribute 'segment'"):
        cliper.segment  # noqa: B018
    from importlib.metadata import version

    assert cliper.__version__ == version("cliper")


def parameters(function: Any) -> dict[str, Any]:
    """Parameter -> its default; ``...`` where it has none."""
    found = inspect.signature(function).parameters.values()
    return {p.name: ... if p.default is p.empty else p.default for p in found if p.name not in ("self", "cls")}


SIGNATURES: dict[str, dict[str, Any]] = {
    "Segmenter.from_pretrained": {
        "model": "mini",
        "refiner": None,
        "settings": None,
        "device": None,
        "dtype": None,
        "seed": 0,
    },
    "Segmenter.__call__": {"image": ..., "classes": ..., "background": "auto"},
    "Segmenter.class_maps": {"pixels": ..., "foreground": ..., "background": None},
    "Segmenter.refine": {"image": ..., "maps": ...},
    "Segmenter.encode_text": {"classes": ...},
    "Segmenter.with_settings": {"settings": ...},
    "Segmentation.overlay": {"opacity": 0.55, "legend": True},
    "Segmentation.save": {"path": ...},
    "Segmentation.relabel": {
        "sensitivity": None,
        "background_threshold": None,
        "score_threshold": None,
        "normalize": None,
    },
    "Segmentation.clean": {"min_area": 0, "fill_holes": False, "smooth": 0},
    "Segmentation.to_coco": {"file_name": "", "image_id": 1, "min_area": "0.01%"},
    "Segmentation.to_label_studio": {"image_url": "", "min_area": "0.01%"},
    "Segmentation.to_supervision": {},
    "Segmentation.to_transformers": {},
    "ops.compensate": {"maps": ..., "attention": ..., "threshold": ..., "mode": "chain"},
    "ops.assign_labels": {
        "refined": ...,
        "maps": ...,
        "size": ...,
        "background_threshold": 0.6,
        "score_threshold": 0.7,
        "normalize": True,
    },
    "evaluation.ConfusionMatrix": {"num_classes": ..., "ignore": (255,)},
    "evaluation.ConfusionMatrix.update": {"target": ..., "prediction": ...},
    "presets": {},
    "load_preset": {"name": ...},
    "example_photo": {},
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_public_signatures(name: str) -> None:
    thing: Any = cliper
    for part in name.split("."):
        thing = getattr(thing, part)
    found, expected = parameters(thing), SIGNATURES[name]
    # Further parameters must have defaults.
    assert list(found.items())[: len(expected)] == list(expected.items())
    assert ... not in list(found.values())[len(expected) :]


def test_public_attributes() -> None:
    fields = {field.name for field in dataclasses.fields(cliper.Segmentation)}
    assert {"labels", "classes", "confidence", "image", "settings", "model", "refiner"} <= fields
    assert isinstance(inspect.getattr_static(cliper.Segmentation, "scores"), property)
    for name in ("iou", "miou"):
        assert isinstance(inspect.getattr_static(cliper.evaluation.ConfusionMatrix, name), property)
    assert [field.name for field in dataclasses.fields(cliper.Preset)] == [
        "name",
        "model",
        "benchmark",
        "refiner",
        "settings",
        "published",
    ]
    defaults = {field.name: field.default for field in dataclasses.fields(cliper.Settings)}
    assert (
        defaults
        | {
            "recipe": "conference",
            "size": 336,
            "logit_scale": 100.0,
            "map_threshold": 0.1,
            "select_layer": -1,
            "window": 0,
            "attention": "fused",
            "fuse_features": True,
            "templates": "scene15",
        }
        == defaults
    )


def test_errors_have_one_base_class() -> None:
    found = vars(cliper.errors).items()
    classes = {name: value for name, value in found if inspect.isclass(value) and issubclass(value, Exception)}
    names = [name for name in classes if name != "CliperError"]
    assert set(classes) <= set(cliper.errors.__all__)
    assert all(issubclass(classes[name], cliper.CliperError) for name in names)
    assert issubclass(cliper.errors.InputError, ValueError)
    assert issubclass(cliper.errors.MissingExtraError, ImportError)


# --- imports ---------------------------------------------------------------------------------------------

LOADED = """
import sys, json
before = set(sys.modules)
import {module}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_importing_the_package_imports_nothing() -> None:
    loaded = python(LOADED.format(module="cliper"))
    assert not {name.partition(".")[0] for name in loaded} & set(HEAVY)
    assert [name for name in loaded if name.startswith("cliper")] == ["cliper"]
    # typing, importlib and their imports; torch alone imports more than 1,500.
    assert len(loaded) < 60, loaded


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("cliper.errors", set()),
        ("cliper.cache", set()),
        ("cliper.examples", set()),
        ("cliper.settings", {"yaml"}),
        ("cliper.prompts", {"yaml"}),
        ("cliper.result", {"yaml", "numpy"}),
        ("cliper.formats", {"yaml", "numpy", "PIL"}),
        ("cliper.evaluation", {"yaml"}),
        ("cliper.checkpoints", {"yaml"}),
        ("cliper.cli.main", {"yaml", "click"}),
    ],
)
def test_light_modules_import_no_heavy_library(module: str, allowed: set[str]) -> None:
    loaded = {name.partition(".")[0] for name in python(LOADED.format(module=module))}
    assert loaded & set(HEAVY) <= allowed


# --- every module ----------------------------------------------------------------------------------------

# One process imports the libraries and forks for each module, so that no other module of the package is imported yet.
ALONE = """
import json, os, sys, traceback
import torch, numpy, yaml, PIL.Image, PIL.ImageDraw, transformers
failures = {}
for name in sys.argv[1:]:
    assert not any(m == "cliper" or m.startswith("cliper.") for m in sys.modules)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            __import__(name)
            said = b""
        except BaseException:
            said = traceback.format_exc().encode()
        os.write(writer, said[-4000:])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read().decode()
    os.waitpid(child, 0)
    if said:
        failures[name] = said
print(json.dumps(failures))
"""


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_every_module_can_be_imported_first() -> None:
    assert len(MODULES) > 40
    assert python(ALONE, *MODULES) == {}


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Names of ``__all__`` that are defined here, and the public methods and properties of their classes."""
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if getattr(value, "__module__", None) != module.__name__:
            continue  # a constant, or defined in another module
        yield name, value
        if inspect.isclass(value):
            for member, inner in vars(value).items():
                inner = inner.__func__ if isinstance(inner, classmethod | staticmethod) else inner
                if (inspect.isfunction(inner) or isinstance(inner, property)) and not member.startswith("_"):
                    yield f"{name}.{member}", inner


@pytest.mark.parametrize("name", ["cliper", *MODULES])
def test_every_public_name_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip()
    silent = [
        path
        for path, value in public(module)
        # click commands have their help elsewhere
        if not (getattr(value, "help", None) or inspect.getdoc(value) or "").strip()
    ]
    assert silent == []


@pytest.mark.parametrize("name", MODULES)
def test_all_lists_existing_names(name: str) -> None:
    module = importlib.import_module(name)
    listed = getattr(module, "__all__", None)
    if listed is None:
        # A package without names of its own.
        assert hasattr(module, "__path__")
        return
    assert sorted(set(listed)) == sorted(listed)
    assert [item for item in listed if not hasattr(module, item)] == []
