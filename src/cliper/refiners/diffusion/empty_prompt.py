"""The embedding of the empty prompt: a constant of a checkpoint, computed once and stored on disk."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

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
_KEY, _POOLED_KEY = "empty_prompt", "pooled"


def empty_prompt(folder: Path) -> tuple[Tensor, Tensor | None]:
    """The embedding of the empty prompt by the text encoder, or by both of Stable Diffusion XL.

    An encoder is loaded only if the embedding is not in the cache, and freed at once. A cache file that is damaged is
    replaced; a cache that cannot be written is not used.

    Args:
        folder: of the pipeline.

    Returns:
        [1, 77, D] float32 (77 is the tokenizer's length); and the second encoder's embedding of the whole prompt
        [1, D'], None if there is one encoder.

    Raises:
        CheckpointError: a tokenizer or a text encoder that cannot be used.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    path = cache_folder() / "prompts" / f"{_fingerprint(folder)}.safetensors"
    with suppress(OSError, SafetensorError):
        cached = load(path.read_bytes())
        if _KEY in cached:
            return cached[_KEY], cached.get(_POOLED_KEY)
    hidden, pooled = _encode(folder)
    with suppress(OutputError), atomic_write(path) as temporary:
        temporary.write_bytes(save({_KEY: hidden} if pooled is None else {_KEY: hidden, _POOLED_KEY: pooled}))
    return hidden, pooled


def _encode(folder: Path) -> tuple[Tensor, Tensor | None]:
    if not (folder / "text_encoder_2").is_dir():
        return _encode_with(folder, "").last_hidden_state.clone(), None
    first, second = (_encode_with(folder, suffix) for suffix in ("", "_2"))
    # As in Stable Diffusion XL's pipeline: the output of the last layer but one.
    hidden = torch.cat([output.hidden_states[-2] for output in (first, second)], -1)
    return hidden, second.text_embeds.clone()


@torch.inference_mode()
def _encode_with(folder: Path, suffix: str) -> Any:
    """The output of ``text_encoder`` or ``text_encoder_2``, which is freed at once."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    model_class = CLIPTextModelWithProjection if suffix else CLIPTextModel
    encoder = load_pretrained(model_class, folder / f"text_encoder{suffix}", torch.float32)
    with silence_transformers(), reraise(Exception, CheckpointError, f"{folder}: the empty prompt cannot be encoded"):
        tokenizer = CLIPTokenizer.from_pretrained(str(folder / f"tokenizer{suffix}"), local_files_only=True)
        length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        tokens = tokenizer("", padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        output = encoder(tokens.input_ids, output_hidden_states=True)
    if not bool(torch.isfinite(output[0]).all()):
        raise CheckpointError(
            f"{folder / f'text_encoder{suffix}'}: expected a finite embedding of the empty prompt, got NaN or "
            "infinity: the weights are broken; get the checkpoint again"
        )
    return output


def _fingerprint(folder: Path) -> str:
    """Identifies tokenizer and text encoder by their content, wherever the folder is."""
    digest = hashlib.sha256()
    for part in _parts(folder):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:32]


def _parts(folder: Path) -> Iterator[bytes]:
    suffixes = ("", "_2") if (folder / "text_encoder_2").is_dir() else ("",)
    for suffix in suffixes:
        for path in sorted(
            [*(folder / f"tokenizer{suffix}").iterdir(), folder / f"text_encoder{suffix}" / "config.json"]
        ):
            if path.is_file():
                yield path.name.encode()
                yield path.read_bytes()
    for path in (path for suffix in suffixes for path in weight_paths(folder, "diffusion", f"text_encoder{suffix}")):
        for name, tensor in iter_tensors(path):
            yield f"{name} {tensor.dtype} {list(tensor.shape)}".encode()
            sample = tensor.reshape(-1)[: _SAMPLE // max(1, tensor.element_size())]
            yield sample.contiguous().view(torch.uint8).numpy().tobytes()
