"""Load models of ``transformers``."""

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
        CheckpointError: weights are missing or damaged, or do not fit ``config.json``.
        ResourceError: memory ran out.
    """
    with (
        reraise(Exception, CheckpointError, f"{folder}: could not read the weights"),  # the libraries raise many kinds
        convert_out_of_memory(f"loading {folder}", "use a smaller model, or a machine with more memory"),
        silence_transformers(),
    ):
        try:
            model, info = model_class.from_pretrained(
                str(folder), dtype=dtype, local_files_only=True, output_loading_info=True
            )
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):
                raise
            raise CheckpointError(
                f"{folder}: expected weights in the shapes that config.json describes, got others; "
                f"`cliper models verify` names them"
            ) from None
    # transformers fills missing weights with random numbers. DINO's checkpoints have no pooler.
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise CheckpointError(
            f"{folder}: expected every weight that config.json describes; the file lacks {missing[0]} "
            f"({len(missing)} in all); download the checkpoint again"
        )
    return model.eval().requires_grad_(False)
