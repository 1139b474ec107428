"""An export as a folder: graphs, tokenizer, and what a client needs to know."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from cliper.errors import (
    CheckpointError,
    MissingExtraError,
    OutputError,
    RefinerError,
    SettingsError,
    quote_path,
    reraise,
)
from cliper.files import write_json
from cliper.images import MAX_PATCHES
from cliper.provenance import versions
from cliper.settings import Settings

__all__ = ["FORMATS", "PRECISIONS", "export_model"]

FORMATS = ("onnx", "openvino")
PRECISIONS = ("float32", "float16", "int8")

# Settings that a graph does not compute -> the value that leaves them out.
_NOT_EXPORTED = {
    "window": 0,
    "extra_sizes": (),
    "flip": False,
    "class_top": 0,
    "class_min_score": 0.0,
    "background_count": 0,
    "edge_weight": 0.0,
    "refine_propagation": "product",
}


def export_model(
    out: str | Path,
    model: str | Path = "mini",
    *,
    target: str = "onnx",
    settings: Settings | None = None,
    refiner: str | None = None,
    shape: tuple[int, int] | None = None,
    precision: str = "float32",
) -> None:
    """Write a folder with a checkpoint's graphs, its tokenizer and ``config.json``; ``docs/export.md`` describes them.

    Args:
        out: the folder, which must not exist.
        model: as for :meth:`.Segmenter.from_pretrained`.
        target: ``"onnx"`` or ``"openvino"``.
        settings: None takes those recommended for the checkpoint.
        refiner: None or ``"self"``.
        shape: (height, width) of all images in pixels; None leaves it open.
        precision: of the stored weights: ``"float32"``, ``"float16"`` or ``"int8"``.

    Raises:
        SettingsError: an unknown target or precision, a setting that no graph computes, or a shape that does not fit.
        RefinerError: another refiner.
        MissingExtraError: a library of the extra ``export`` is not installed.
        CheckpointError: as for :meth:`.Segmenter.from_pretrained`; or a model with another tokenizer than CLIP's.
        OutputError: the folder exists or cannot be written; nothing is left of it.
    """
    out = Path(out)
    _check(out, target, refiner, precision)
    import torch

    from cliper.checkpoints import check_folder, recommended_settings, resolve, resolve_recipe
    from cliper.encoders.class_map_predictor import ClassMapPredictor
    from cliper.encoders.clip import load_clip
    from cliper.encoders.tokenizer import load_tokenizer
    from cliper.export.config import make_config
    from cliper.export.graphs import image_graph, text_graph
    from cliper.export.weights import save
    from cliper.kernels.switch import disable_kernels
    from cliper.refiners.self_similarity import SelfSimilarityRefiner

    checkpoint = resolve(model, "clip")
    check_folder(checkpoint.folder, "clip")
    settings = recommended_settings(checkpoint) if settings is None else settings
    _check_settings(settings)
    settings = settings.replace(recipe=resolve_recipe(settings.recipe, checkpoint))
    with disable_kernels(), _new_folder(out) as folder:
        device, activation = torch.device("cpu"), checkpoint.activation
        encoder = load_clip(checkpoint.folder, device=device, dtype=torch.float32, activation=activation)
        if encoder.text.tokenizer_rules != "clip":
            raise CheckpointError(f"{checkpoint.name}: expected a model with CLIP's tokenizer, got one with another")
        ClassMapPredictor(encoder, settings, checkpoint.name)  # checks that the settings fit
        if shape is not None:
            _check_shape(shape, encoder.patch_size)
        own = None if refiner is None else SelfSimilarityRefiner(encoder)
        refiner_shape = None
        if own is not None and (shape is not None or settings.refine_size is not None):
            refiner_shape = own.input_size(shape or (1, 1), settings)
        tokenizer = load_tokenizer(checkpoint.folder)
        tokenizer.save(str(folder / "tokenizer.json"))
        start, end = tokenizer.encode("").ids
        save(text_graph(encoder), folder / "text", target, precision)
        save(image_graph(encoder, settings, own, shape, refiner_shape), folder / "image", target, precision)
        config = make_config(encoder, settings, own, shape, refiner_shape)
        config["text"] |= {"start": start, "end": end}
        record = {"model": checkpoint.name, "target": target, "precision": precision, "versions": versions()}
        write_json(folder / "config.json", {**record, **config})


def _check(out: Path, target: str, refiner: str | None, precision: str) -> None:
    """Check all that needs no checkpoint, before anything is downloaded or loaded."""
    for name, value, known in (("target", target, FORMATS), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise SettingsError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    if refiner not in (None, "self"):
        raise RefinerError(f"refiner: expected none or 'self', whose graphs can be exported, got {refiner!r}")
    if out.exists() or out.is_symlink():
        raise OutputError(f"expected a folder that does not exist, got {quote_path(out)}; choose another, or delete it")
    for library in ("onnx", "onnxscript", *(["openvino"] if target == "openvino" else [])):
        if find_spec(library) is None:
            raise MissingExtraError(f"an export needs {library}, which is not installed; pip install 'cliper[export]'")


def _check_settings(settings: Settings) -> None:
    wrong = [name for name, value in _NOT_EXPORTED.items() if getattr(settings, name) != value]
    if wrong:
        values = ", ".join(f"{name}={_NOT_EXPORTED[name]!r}" for name in wrong)
        raise SettingsError(f"{', '.join(wrong)}: no graph computes this; expected {values}")
    if settings.attention == "proxy":
        raise SettingsError("attention: no graph computes 'proxy'; take 'fused' or an ablation")


def _check_shape(shape: tuple[int, int], patch: int) -> None:
    patches = shape[0] * shape[1] // patch**2
    if min(shape) < patch or shape[0] % patch or shape[1] % patch or patches > MAX_PATCHES:
        raise SettingsError(
            f"shape: expected multiples of the patch size {patch} with at most {MAX_PATCHES} patches, "
            f"got {shape[0]}x{shape[1]}"
        )


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder, which becomes ``out`` if the block succeeds, and is removed otherwise."""
    temporary = out.absolute().with_name(f".{secrets.token_hex(8)}")
    new_parents = [folder for folder in temporary.parents if not folder.exists()]
    with reraise(OSError, OutputError, f"cannot write {quote_path(out)}", "choose another folder"):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            temporary.rename(out)
        except BaseException:  # KeyboardInterrupt too
            shutil.rmtree(temporary, ignore_errors=True)
            for folder in new_parents:  # deepest first
                with suppress(OSError):
                    folder.rmdir()
            raise
