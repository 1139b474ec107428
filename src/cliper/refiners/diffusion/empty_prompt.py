"""The embedding of the empty prompt: a constant of a checkpoint, computed once and stored on disk."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from cliper.cache import cache_folder
from cliper.checkpoints.tensors import iter_tensors
from cliper.checkpoints.validate import weight_paths
from cliper.errors import CheckpointError, OutputError, reraise
from cliper.files import atomic_write
from cliper.hf_logging import silence_transformers
from cliper.pretrained import load_pretrained

__all__ = ["empty_prompt"]

# Bytes of each tensor in the fingerprint: reading 1.4 GB on every start would take longer than encoding the prompt,
# and no two checkpoints share the start of every tensor.
_SAMPLE = 4096
_KEY = "empty_prompt"


def empty_prompt(folder: Path) -> Tensor:
    """The text encoder's embedding of the empty prompt.

    The encoder is loaded only if the embedding is not in the cache, and freed at once. A cache file that is damaged is
    replaced; a cache that cannot be written is not used.

    Args:
        folder: of the pipeline.

    Returns:
        [1, 77, D] float32 (77 is the tokenizer's length).

    Raises:
        CheckpointError: a tokenizer or a text encoder that cannot be used.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    path = cache_folder() / "prompts" / f"{_fingerprint(folder)}.safetensors"
    with suppress(OSError, SafetensorError):
        cached: Tensor = load(path.read_bytes())[_KEY]
        return cached
    embedding = _encode(folder)
    with suppress(OutputError), atomic_write(path) as temporary:
        temporary.write_bytes(save({_KEY: embedding}))
    return embedding


@torch.inference_mode()
def _encode(folder: Path) -> Tensor:
    from transformers import CLIPTextModel, CLIPTokenizer

    encoder = load_pretrained(CLIPTextModel, folder / "text_encoder", torch.float32)
    with silence_transformers(), reraise(Exception, CheckpointError, f"{folder}: the empty prompt cannot be encoded"):
        tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
        length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        tokens = tokenizer("", padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        embedding: Tensor = encoder(tokens.input_ids)[0]
    if not bool(torch.isfinite(embedding).all()):
        raise CheckpointError(
            f"{folder / 'text_encoder'}: expected a finite embedding of the empty prompt, got NaN or infinity: "
            f"the weights are broken; get the checkpoint again"
        )
    return embedding.clone()


def _fingerprint(folder: Path) -> str:
    """Identifies tokenizer and text encoder by their content, wherever the folder is."""
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
    for path in weight_paths(folder, "diffusion", "text_encoder"):
        for name, tensor in iter_tensors(path):
            yield f"{name} {tensor.dtype} {list(tensor.shape)}".encode()
            sample = tensor.reshape(-1)[: _SAMPLE // max(1, tensor.element_size())]
            yield sample.contiguous().view(torch.uint8).numpy().tobytes()
