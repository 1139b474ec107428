"""CLIP's text tower: texts to embeddings, in batches."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import CheckpointError, ClassListError, reraise
from cliper.hf_logging import silence_transformers

__all__ = ["TextTower"]

_BATCH_SIZE = 256


class TextTower:
    """The text tower of a ``transformers`` CLIP. The tokenizer is loaded when the first text is encoded.

    Args:
        model: the ``CLIPModel``.
        folder: of the checkpoint, for its tokenizer.
    """

    def __init__(self, model: Any, folder: Path) -> None:
        self._model = model.text_model
        self._projection = model.text_projection
        self._folder = folder
        self._config: dict[str, Any] = model.config.text_config.to_dict()
        self._limit: int = model.config.text_config.max_position_embeddings
        self._tokenizer: Any = None
        self._fingerprint: str | None = None

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed texts.

        Args:
            texts: n texts; those of similar length share a batch, padded to the longest in it.

        Returns:
            Unit embeddings [n, D] float32, on the tower's device.

        Raises:
            ClassListError: a text has more tokens than the tower reads.
            CheckpointError: the checkpoint has no tokenizer, or it cannot be read.
        """
        device = self._projection.weight.device
        out = torch.empty(len(texts), self._projection.out_features, device=device)
        tokens = self._tokenize(texts)
        order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
        for first in range(0, len(order), _BATCH_SIZE):
            batch = order[first : first + _BATCH_SIZE]
            longest = max(len(tokens[i]) for i in batch)
            # Attention is causal and the output is read at the end token, so padding after it has no effect.
            pad = self._tokenizer.pad_token_id or 0
            ids = torch.tensor([tokens[i] + [pad] * (longest - len(tokens[i])) for i in batch], device=device)
            pooled = self._model(input_ids=ids).pooler_output
            out[batch] = F.normalize(self._projection(pooled).float(), dim=-1)
        return out

    def fingerprint(self) -> str:
        """SHA-256 of what embeddings depend on: parameters, configuration, tokenizer, dtype, type of device."""
        if self._fingerprint is None:
            digest = hashlib.sha256(json.dumps(self._config, sort_keys=True, default=str).encode())
            for module in (self._model, self._projection):
                for name, parameter in sorted(module.state_dict().items()):
                    flat = parameter.detach().cpu().contiguous().flatten()
                    digest.update(f"{name}:{parameter.dtype}:{tuple(parameter.shape)}".encode())
                    digest.update(flat.view(torch.uint8).numpy().data)
            for file in sorted(self._folder.glob("*")):
                if file.name.startswith(("tokenizer", "vocab", "merges", "special_tokens")) and file.is_file():
                    digest.update(file.name.encode() + file.read_bytes())
            digest.update(self._projection.weight.device.type.encode())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        if self._tokenizer is None:
            self._tokenizer = _load_tokenizer(self._folder)
        if not texts:
            return []
        ids: list[list[int]] = self._tokenizer(list(texts))["input_ids"]
        for text, tokens in zip(texts, ids, strict=True):
            if len(tokens) > self._limit:
                shown = text if len(text) <= 60 else text[:57] + "..."
                raise ClassListError(
                    f"expected a text of at most {self._limit} tokens (about {self._limit - 15} words), "
                    f"got {len(tokens)} tokens: {shown!r}; use a shorter class name"
                )
        return ids


def _load_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise CheckpointError(
            f"{folder}: expected a tokenizer (tokenizer.json, or vocab.json and merges.txt) beside the "
            f"weights, found none; copy it from the source of the checkpoint"
        )
    # The parsers below transformers raise many kinds of exceptions.
    with reraise(Exception, CheckpointError, f"{folder}: could not read the tokenizer"), silence_transformers():
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    tokenizer.model_max_length = int(1e9)  # no warning about long texts, which _tokenize refuses
    return tokenizer
