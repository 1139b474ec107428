"""The text tower: texts to embeddings, in batches."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.checkpoints.clip_config import TextConfig
from cliper.encoders.layers import Function, TransformerLayer, layer_norm, linear
from cliper.encoders.tokenizer import load_tokenizer, pad_to_length
from cliper.errors import CheckpointError, ClassListError
from cliper.ops.attention import attend

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["TextTower"]

_BATCH_SIZE = 256


class TextTower:
    """The text tower of a CLIP, or of another family. The tokenizer is loaded when the first text is encoded.

    Args:
        config: its shape.
        weights: of the model, by name.
        folder: of the checkpoint, for its tokenizer.
    """

    def __init__(self, config: TextConfig, weights: Mapping[str, Tensor], folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._tokenizer: Tokenizer | None = None
        self._token_embedding = weights["text_model.embeddings.token_embedding.weight"]
        table = weights.get("text_model.embeddings.position_embedding.weight")
        # TIPSv2 has no table, and multiplies its token embeddings.
        self._position_embedding = _sinusoids(config, self._token_embedding) if table is None else table
        self._token_scale = config.hidden_size**0.5 if table is None else None
        layers = range(config.num_hidden_layers)
        self._layers = [TransformerLayer(config, weights, f"text_model.encoder.layers.{i}") for i in layers]
        self._final_norm = layer_norm(weights, "text_model.final_layer_norm", config.layer_norm_eps)
        projected = "text_projection.weight" in weights
        self._projection: Function = linear(weights, "text_projection") if projected else lambda x: x
        self._width = len(weights["text_projection.weight"]) if projected else config.hidden_size
        self.max_tokens = config.max_position_embeddings
        self.tokenizer_rules = config.tokenizer
        self.fingerprint = _fingerprint(config, weights, folder)
        """SHA-256 of what embeddings depend on: weights, configuration, tokenizer, dtype, type of device."""

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed texts.

        Args:
            texts: n texts; those of similar length share a batch, padded to the longest in it.

        Returns:
            Unit embeddings [n, D] float32, on the tower's device.

        Raises:
            ClassListError: a text has more tokens than the tower reads.
            CheckpointError: the checkpoint has no tokenizer, it cannot be read, or it is that of a larger vocabulary.
        """
        device = self._token_embedding.device
        out = torch.empty(len(texts), self._width, device=device)
        tokens = self._tokenize(texts)
        order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
        for batch in self._batches(order, tokens):
            longest = max(len(tokens[i]) for i in batch)
            ids = torch.tensor([tokens[i] + [0] * (longest - len(tokens[i])) for i in batch], device=device)
            out[batch] = self.embed_tokens(ids)
        return out

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Embed token ids [n, T] int64, texts with all their special tokens, padded by 0 where that has no effect.

        Returns:
            Unit embeddings [n, D] float32.
        """
        return F.normalize(self._pool(self._hidden_states(ids), ids).float(), dim=-1)

    def _batches(self, order: Sequence[int], tokens: Sequence[list[int]]) -> Iterator[list[int]]:
        """Indices of texts that are encoded together, given by ascending length.

        Where attention is causal and the output is read at the end token, padding after it has no effect; else texts
        must be equally long.
        """
        lengths = itertools.groupby(order, key=lambda i: 0 if self._config.causal else len(tokens[i]))
        for group in (list(members) for _, members in lengths):
            for first in range(0, len(group), _BATCH_SIZE):
                yield group[first : first + _BATCH_SIZE]

    def _hidden_states(self, ids: Tensor) -> Tensor:
        """Token ids [n, T] -> output of the last layer [n, T, width]."""
        x = F.embedding(ids, self._token_embedding)
        if self._token_scale is not None:
            x = x * self._token_scale
        x = x + self._position_embedding[: ids.shape[1]]
        for layer in self._layers:
            x, _ = layer.run(x, _attend_causally if self._config.causal else attend)
        return x

    def _pool(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Hidden states [n, T, width] of token ids [n, T] -> embeddings [n, D], not yet of length 1."""
        if self._config.pooling == "mean":
            return self._projection(self._final_norm(hidden).mean(1))
        if self._config.pooling == "last":
            return self._projection(self._final_norm(hidden[:, -1]))
        rows = torch.arange(ids.shape[0], device=ids.device)
        return self._projection(self._final_norm(hidden[rows, self._ends(ids)]))

    def _ends(self, ids: Tensor) -> Tensor:
        """Positions [n] of the tokens whose outputs are the texts' embeddings: the first end tokens.

        Old configurations of CLIP have 2 as ``eos_token_id``, which is wrong: ``transformers`` then takes the largest.
        """
        end = self._config.eos_token_id
        if end == 2 and self._config.tokenizer == "clip":
            return ids.argmax(1)
        return (ids == end).int().argmax(1)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        limit = self.max_tokens
        if self._tokenizer is None:
            tokenizer = load_tokenizer(self._folder, self._config.tokenizer)
            if self._config.pooling == "last":
                pad_to_length(tokenizer, self._folder, limit)
            self._tokenizer = tokenizer  # complete, because other threads may be waiting for it
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        for text, tokens in zip(texts, ids, strict=True):
            if len(tokens) > limit:
                shown = text if len(text) <= 60 else text[:57] + "..."
                raise ClassListError(
                    f"expected a text of at most {limit} tokens (about {limit - 15} words), "
                    f"got {len(tokens)} tokens: {shown!r}; use a shorter class name"
                )
        largest, count = max(map(max, filter(None, ids)), default=0), len(self._token_embedding)
        if largest >= count:
            raise CheckpointError(
                f"{self._folder}: expected a tokenizer of at most {count:,} tokens, got token {largest:,}; "
                "it is that of another model"
            )
        return ids


def _sinusoids(config: TextConfig, like: Tensor) -> Tensor:
    """Position embeddings [T, width]: sines, then cosines, of positions times frequencies from 1 to 1 / 10000."""
    half = config.hidden_size // 2
    frequencies = torch.exp(torch.arange(half) * (-math.log(10000) / max(1, half - 1)))
    angles = torch.arange(config.max_position_embeddings)[:, None] * frequencies
    table = F.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, config.hidden_size % 2))
    return table.to(like)


def _attend_causally(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, is_causal=True)


def _fingerprint(config: TextConfig, weights: Mapping[str, Tensor], folder: Path) -> str:
    digest = hashlib.sha256(json.dumps(asdict(config)).encode())
    for name, tensor in sorted(weights.items()):
        if name.startswith("text_"):
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:{tensor.device.type}".encode())
            digest.update(flat.view(torch.uint8).numpy().data)
    for file in sorted(folder.glob("*")):
        if file.name.startswith(("tokenizer", "vocab", "merges", "special_tokens")) and file.is_file():
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
