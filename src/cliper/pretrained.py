"""Load models of ``transformers`` and ``diffusers`` with all their weights."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from cliper.devices import convert_out_of_memory
from cliper.errors import CheckpointError, reraise
from cliper.hf_logging import silence_transformers

__all__ = ["check_problems", "list_problems", "load_model", "load_pretrained"]


def load_pretrained(model_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A model of ``transformers`` for inference, with all weights from the folder except an unused pooler's.

    Raises:
        CheckpointError: weights are missing or damaged, or do not fit ``config.json``.
        ResourceError: memory ran out.
    """
    model, problems = load_model(model_class, folder, dtype=dtype)
    check_problems(folder, problems)
    return model.eval().requires_grad_(False)


def load_model(model_class: Any, folder: Path, **options: Any) -> tuple[Any, list[str]]:
    """A model, and the weights that do not fit its configuration: one line each.

    Args:
        model_class: of ``transformers`` or ``diffusers``.
        folder: of its configuration and weights.
        options: of ``from_pretrained``.

    Raises:
        CheckpointError: a configuration or weights that cannot be used, or a configuration that describes far more
            weights than the files hold.
        ResourceError: memory ran out.
    """
    import transformers

    path = str(folder)
    options |= {"local_files_only": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    with (
        reraise(Exception, CheckpointError, f"{folder}: could not read the weights"),  # the libraries raise many kinds
        convert_out_of_memory(f"loading {folder}", "use a smaller model, or a machine with more memory"),
        silence_transformers(),
    ):
        if hasattr(model_class, "load_config"):  # of diffusers
            config, build = model_class.load_config(path), model_class.from_config
            options["low_cpu_mem_usage"] = False  # it needs accelerate
        else:
            config_class = getattr(model_class, "config_class", transformers.AutoConfig)
            options["config"] = config = config_class.from_pretrained(path, local_files_only=True)
            build = getattr(model_class, "from_config", model_class)  # that of an AutoModel
        logger = logging.getLogger("diffusers")
        level = logger.level
        logger.setLevel(logging.ERROR)  # it would log the problems
        try:
            with torch.device("meta"):
                described = sum(parameter.numel() for parameter in build(config).parameters())
            size = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in (".safetensors", ".bin"))
            if described > size:  # memory would be allocated for what is missing
                raise ValueError(f"config.json describes {described:,} weights, the files have {size:,} bytes")
            model, info = model_class.from_pretrained(path, **options)
        finally:
            logger.setLevel(level)
    # The libraries fill missing weights with random numbers. DINO's checkpoints have no pooler, which is not used.
    missing = [name for name in info["missing_keys"] if not name.startswith("pooler.")]
    return model, list_problems(info["mismatched_keys"], missing)


def list_problems(mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]], missing: Iterable[str]) -> list[str]:
    """One line for each weight whose shape (stored, expected) differs, and one for those that are missing."""
    problems = [
        f"{name}: expected shape {list(expected)}, got {list(got)}" for name, got, expected in sorted(mismatched)
    ]
    if names := sorted(missing):
        count = "1 tensor is" if len(names) == 1 else f"{len(names)} tensors are"
        problems.append(f"{count} missing: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}")
    return problems


def check_problems(folder: Path, problems: Sequence[str]) -> None:
    """Refuse a model whose weights do not fit its configuration.

    Raises:
        CheckpointError: there is a problem.
    """
    if problems:
        of = f" (problem 1 of {len(problems)})" if len(problems) > 1 else ""
        raise CheckpointError(
            f"{folder}: expected every weight that config.json describes: {problems[0]}{of}; "
            "download the checkpoint again"
        )
