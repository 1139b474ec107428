"""Load models of ``transformers`` for the refiners."""

from pathlib import Path
from typing import Any

import torch

from cliper.errors import CheckpointError, loading_reason
from cliper.quiet import quiet_transformers

__all__ = ["load_pretrained"]


def load_pretrained(model_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A model of ``transformers`` for inference, with all weights from the folder except an unused pooler's.

    Raises:
        CheckpointError: weights that cannot be read or are missing.
    """
    try:
        with quiet_transformers():
            model, info = model_class.from_pretrained(
                str(folder), dtype=dtype, local_files_only=True, output_loading_info=True
            )
    except MemoryError:
        raise
    except Exception as error:  # transformers, safetensors and pickle raise many kinds
        raise CheckpointError(f"{folder}: could not read the weights: {loading_reason(error)}") from None
    # transformers fills missing weights with random numbers. DINO's checkpoints have no pooler.
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} weights are missing, {missing[0]} first; get the checkpoint again"
        )
    return model.eval().requires_grad_(False)
