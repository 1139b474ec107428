"""Load models of ``transformers`` for the refiners."""

from pathlib import Path
from typing import Any

import torch

from cliper.devices import convert_out_of_memory
from cliper.errors import CheckpointError, reraise
from cliper.hf_logging import silence_transformers

__all__ = ["load_pretrained"]


def load_pretrained(model_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A model of ``transformers`` for inference, with all weights from the folder except an unused pooler's.

    Raises:
        CheckpointError: weights that cannot be read or are missing.
        ResourceError: out of memory.
    """
    with (
        reraise(Exception, CheckpointError, f"{folder}: could not read the weights"),  # the libraries raise many kinds
        convert_out_of_memory(f"loading {folder}", "use a smaller refiner such as dino-s16, or none"),
        silence_transformers(),
    ):
        model, info = model_class.from_pretrained(
            str(folder), dtype=dtype, local_files_only=True, output_loading_info=True
        )
    # transformers fills missing weights with random numbers. DINO's checkpoints have no pooler.
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} weights are missing, {missing[0]} first; get the checkpoint again"
        )
    return model.eval().requires_grad_(False)
