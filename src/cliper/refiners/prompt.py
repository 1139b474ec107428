"""The embedding of the empty prompt: a constant of a checkpoint, computed once and kept on disk."""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cliper.cache import cache_folder
from cliper.checkpoints.files import COMPONENTS
from cliper.checkpoints.tensors import iter_tensors
from cliper.checkpoints.validate import weight_paths
from cliper.errors import CheckpointError, short_reason
from cliper.hf_logging import silence_transformers

__all__ = ["empty_prompt"]

# Of each tensor this much goes into the fingerprint: reading 1.4 GB on every start would take longer than
# encoding the prompt, and no two checkpoints share the start of every tensor.
_SAMPLE = 4096
_KEY = "empty_prompt"


def empty_prompt(folder: Path) -> Tensor:
    """What the pipeline's text encoder makes of the empty prompt.

    The encoder is loaded only if the answer is not on disk, and freed at once.

    Args:
        folder: of the pipeline.

    Returns:
        [1, 77, D] float32 (77 being what the tokenizer says).

    Raises:
        CheckpointError: a tokenizer or a text encoder that cannot be used.
    """
    path = cache_folder() / "prompts" / f"{_fingerprint(folder)}.safetensors"
    kept = _read(path)
    if kept is not None:
        return kept
    embedding = _encode(folder)
    _write(path, embedding)
    return embedding


@torch.inference_mode()
def _encode(folder: Path) -> Tensor:
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        with silence_transformers():
            tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
            encoder, info = CLIPTextModel.from_pretrained(
                str(folder / "text_encoder"), dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
        length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        tokens = tokenizer("", padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        # Some pipelines hide the padding from their encoder; Stable Diffusion's do not, and say so here.
        mask = tokens.attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
        embedding: Tensor = encoder.eval()(tokens.input_ids, attention_mask=mask)[0]
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, IndexError) as error:
        raise CheckpointError(f"{folder}: the empty prompt cannot be encoded: {short_reason(error)}") from None
    missing = sorted(info["missing_keys"])  # what is missing was filled with random numbers
    if missing:
        raise CheckpointError(
            f"{folder / 'text_encoder'}: {len(missing)} weights are missing, {missing[0]} first; "
            f"get the checkpoint again"
        )
    if not bool(torch.isfinite(embedding).all()):
        raise CheckpointError(
            f"{folder / 'text_encoder'}: expected a finite embedding of the empty prompt, got NaN or infinity: "
            f"the weights are broken; get the checkpoint again"
        )
    return embedding.clone()


def _read(path: Path) -> Tensor | None:
    """What was kept, or None: a file that is not there or not whole is made again."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        kept = load(path.read_bytes())[_KEY]
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    whole = kept.ndim == 3 and len(kept) == 1 and kept.dtype == torch.float32
    return kept if whole and bool(torch.isfinite(kept).all()) else None


def _write(path: Path, embedding: Tensor) -> None:
    """Keep it, all or nothing; a cache that cannot be written is no reason to fail."""
    from safetensors.torch import save

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: several processes may be doing this at once.
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            try:
                file.write(save({_KEY: embedding.contiguous()}))
                file.close()
                Path(file.name).replace(path)
            except OSError:
                Path(file.name).unlink(missing_ok=True)
    except OSError:
        return


def _fingerprint(folder: Path) -> str:
    """Tells checkpoints apart by content, wherever they lie."""
    digest = hashlib.sha256()
    for part in _parts(folder):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:32]


def _parts(folder: Path) -> Iterator[bytes]:
    for path in sorted([*(folder / "tokenizer").iterdir(), folder / "text_encoder" / "config.json"]):
        if path.is_file():
            yield path.name.encode()
            yield path.read_bytes()
    component: Any = next(item for item in COMPONENTS["diffusion"] if item.folder == "text_encoder")
    for path in weight_paths(folder, component):
        for name, tensor in iter_tensors(path):
            yield f"{name} {tensor.dtype} {list(tensor.shape)}".encode()
            sample = tensor.reshape(-1)[: _SAMPLE // max(1, tensor.element_size())]
            yield sample.contiguous().view(torch.uint8).numpy().tobytes()
