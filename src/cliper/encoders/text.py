"""CLIP's text tower: texts to embeddings, in batches."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.checkpoints.clip import TextConfig
from cliper.encoders.layers import TransformerLayer, layer_norm, linear
from cliper.encoders.tokenizer import load_tokenizer
from cliper.errors import ClassListError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["TextTower"]

_BATCH_SIZE = 256


class TextTower:
    """The text tower of a CLIP. The tokenizer is loaded when the first text is encoded.

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
        self._position_embedding = weights["text_model.embeddings.position_embedding.weight"]
        layers = range(config.num_hidden_layers)
        self._layers = [TransformerLayer(config, weights, f"text_model.encoder.layers.{i}") for i in layers]
        self._final_norm = layer_norm(weights, "text_model.final_layer_norm", config.layer_norm_eps)
        self._projection = linear(weights, "text_projection")
        self._width = len(weights["text_projection.weight"])
        self.max_tokens = config.max_position_embeddings
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
            CheckpointError: the checkpoint has no tokenizer, or it cannot be read.
        """
        device = self._token_embedding.device
        out = torch.empty(len(texts), self._width, device=device)
        tokens = self._tokenize(texts)
        order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
        for first in range(0, len(order), _BATCH_SIZE):
            batch = order[first : first + _BATCH_SIZE]
            longest = max(len(tokens[i]) for i in batch)
            # Attention is causal and the output is read at the end token, so padding after it has no effect.
            ids = torch.tensor([tokens[i] + [0] * (longest - len(tokens[i])) for i in batch], device=device)
            out[batch] = self.embed_tokens(ids)
        return out

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Embed token ids [n, T] int64, each text with its start and end token, padded by 0: [n, D] float32."""
        hidden = self._hidden_states(ids)
        pooled = self._final_norm(hidden[torch.arange(ids.shape[0], device=ids.device), self._ends(ids)])
        return F.normalize(self._projection(pooled).float(), dim=-1)

    def _hidden_states(self, ids: Tensor) -> Tensor:
        """Token ids [n, T] -> output of the last layer [n, T, width]."""
        x = F.embedding(ids, self._token_embedding) + self._position_embedding[: ids.shape[1]]
        for layer in self._layers:
            x, _ = layer.run(x, _attend_causally)
        return x

    def _ends(self, ids: Tensor) -> Tensor:
        """Positions [n] of the tokens whose outputs are the texts' embeddings: the first end tokens.

        Old configurations have 2 as ``eos_token_id``, which is wrong; ``transformers`` then takes the largest id.
        """
        end = self._config.eos_token_id
        return ids.argmax(1) if end == 2 else (ids == end).int().argmax(1)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self._folder)
        limit = self.max_tokens
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        for text, tokens in zip(texts, ids, strict=True):
            if len(tokens) > limit:
                shown = text if len(text) <= 60 else text[:57] + "..."
                raise ClassListError(
                    f"expected a text of at most {limit} tokens (about {limit - 15} words), "
                    f"got {len(tokens)} tokens: {shown!r}; use a shorter class name"
                )
        return ids


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
