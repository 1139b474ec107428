"""The cache folder, and caches of text embeddings: on disk (SQLite) and in memory (LRU).

Importing this module imports neither torch nor numpy.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LRUTextCache", "SQLiteTextCache", "TextEmbeddingCache", "cache_folder"]


def cache_folder() -> Path:
    """``$CLIPER_CACHE``, else ``$XDG_CACHE_HOME/cliper``, else ``~/.cache/cliper``. It may not exist."""
    own = os.environ.get("CLIPER_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "cliper"


class TextEmbeddingCache(Protocol):
    """Text embeddings by fingerprint of the text tower, templates and prompt."""

    def get(self, fingerprint: str, templates: Sequence[str], prompts: Sequence[str]) -> dict[str, Tensor]:
        """Embeddings of the prompts that are in the cache, each [D] float32 on the CPU."""

    def put(self, fingerprint: str, templates: Sequence[str], embeddings: Mapping[str, Tensor]) -> None:
        """Add embeddings by prompt, each [D] float32 on the CPU."""


class LRUTextCache:
    """In-memory LRU cache, for untrusted requests that must not fill the disk. Not thread-safe.

    Args:
        max_size: number of embeddings; the least recently used are dropped.
        fallback: where prompts that are not in memory are looked up; nothing is written to it.
    """

    def __init__(self, max_size: int, fallback: TextEmbeddingCache | None = None) -> None:
        self._max_size, self._fallback = max_size, fallback
        self._embeddings: OrderedDict[bytes, Tensor] = OrderedDict()
        self.hits = 0
        """Prompts that :meth:`get` found."""
        self.misses = 0
        """Prompts that were encoded and given to :meth:`put`."""

    def get(self, fingerprint: str, templates: Sequence[str], prompts: Sequence[str]) -> dict[str, Tensor]:
        """See :class:`TextEmbeddingCache`."""
        found: dict[str, Tensor] = {}
        for prompt in prompts:
            key = _key(fingerprint, templates, prompt)
            if key in self._embeddings:
                self._embeddings.move_to_end(key)
                found[prompt] = self._embeddings[key]
        missing = [prompt for prompt in prompts if prompt not in found]
        if missing and self._fallback is not None:
            others = self._fallback.get(fingerprint, templates, missing)
            self._add(fingerprint, templates, others)
            found.update(others)
        self.hits += len(found)
        return found

    def missing(self, fingerprint: str, templates: Sequence[str], prompts: Sequence[str]) -> list[str]:
        """Prompts that are not in memory; they do not count as misses."""
        return [prompt for prompt in prompts if _key(fingerprint, templates, prompt) not in self._embeddings]

    def put(self, fingerprint: str, templates: Sequence[str], embeddings: Mapping[str, Tensor]) -> None:
        """See :class:`TextEmbeddingCache`."""
        self._add(fingerprint, templates, embeddings)
        self.misses += len(embeddings)

    def _add(self, fingerprint: str, templates: Sequence[str], embeddings: Mapping[str, Tensor]) -> None:
        for prompt, vector in embeddings.items():
            # A clone, because the vector may be a view of a larger tensor.
            self._embeddings[_key(fingerprint, templates, prompt)] = vector.clone()
        while len(self._embeddings) > self._max_size:
            self._embeddings.popitem(last=False)


class SQLiteTextCache:
    """Cache on disk, shared between processes. A file that cannot be used causes a warning, never an error.

    Args:
        path: the file; None takes ``text-embeddings.sqlite`` in the cache folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or cache_folder() / "text-embeddings.sqlite"
        self._usable = True

    def get(self, fingerprint: str, templates: Sequence[str], prompts: Sequence[str]) -> dict[str, Tensor]:
        """See :class:`TextEmbeddingCache`. A lookup creates no file."""
        import numpy as np
        import torch

        # Path.exists would raise where a parent folder may not be entered.
        if not os.path.exists(self._path):  # noqa: PTH110
            return {}
        found: dict[str, Tensor] = {}

        def read(database: sqlite3.Connection) -> None:
            for prompt in prompts:
                key = _key(fingerprint, templates, prompt)
                row = database.execute("SELECT vector FROM embeddings WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[prompt] = torch.from_numpy(np.frombuffer(row[0], dtype="<f4").copy())

        self._transact(read)
        return found

    def put(self, fingerprint: str, templates: Sequence[str], embeddings: Mapping[str, Tensor]) -> None:
        """See :class:`TextEmbeddingCache`."""
        rows = [
            (_key(fingerprint, templates, prompt), vector.numpy().astype("<f4").tobytes())
            for prompt, vector in embeddings.items()
        ]
        self._transact(lambda database: database.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", rows))

    def _transact(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Run one transaction. After the first failure warn, and do nothing any more."""
        if not self._usable:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=10)) as database, database:
                database.execute("CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, vector BLOB NOT NULL)")
                work(database)
        except (sqlite3.Error, OSError) as error:
            self._usable = False
            warnings.warn(
                f"text embeddings are not cached: cannot use {self._path} ({error}); "
                f"delete it, or set CLIPER_CACHE to a folder that can be written",
                stacklevel=3,
            )


def _key(fingerprint: str, templates: Sequence[str], prompt: str) -> bytes:
    return hashlib.sha256(json.dumps([fingerprint, *templates, prompt]).encode()).digest()
