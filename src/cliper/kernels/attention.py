"""Attention without a whole attention map."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.kernels.linear import packed_linear
from cliper.kernels.switch import use_cpu_kernels
from cliper.kernels.threads import threaded_map

__all__ = ["chunked_attention"]

# Below this many keys PyTorch's own attention is as fast.
_MIN_KEYS = 1024
# One task computes this many queries of a head, and this many rows of scores at a time: they stay in the core's cache.
_QUERIES, _ROWS = 1024, 256


def chunked_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attention output [B, H, T, d] of query [B, H, T, d], key and value [B, H, K, d].

    On the CPU in float32 the scores are computed in blocks of rows, one core per block; elsewhere this is
    :func:`torch.nn.functional.scaled_dot_product_attention`.
    """
    keys = key.shape[-2]
    if query.dtype != torch.float32 or keys < _MIN_KEYS or not use_cpu_kernels(query):
        return F.scaled_dot_product_attention(query, key, value, scale=scale)
    batch, heads, tokens, width = query.shape
    out = query.new_empty(batch, tokens, heads, width).transpose(1, 2)
    parts = -(-tokens // _QUERIES)

    def work(index: int) -> None:
        b, h, part = index // parts // heads, index // parts % heads, index % parts
        times_key = packed_linear(key[b, h] * scale, _ROWS)
        times_value = packed_linear(value[b, h].T, _ROWS)
        for start in range(part * _QUERIES, min(tokens, (part + 1) * _QUERIES), _ROWS):
            rows = slice(start, min(start + _ROWS, (part + 1) * _QUERIES))
            scores = times_key(query[b, h, rows])
            out[b, h, rows] = times_value(torch.softmax(scores, -1, out=scores))

    for _ in threaded_map(work, batch * heads * parts):
        pass
    return out
