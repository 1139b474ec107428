"""Text embeddings on disk, so that a class list is encoded once.

One SQLite file: reads and writes of several processes at once are its business, and a killed run leaves it
whole. A file that cannot be used costs time, never the result: it is passed over with a warning.
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
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cliper.cache import cache_folder

__all__ = ["TextCache", "TextMemo", "TextStore"]

_AT_ONCE = 500  # SQLite's limit on variables in one statement is 999 in old builds


class TextStore(Protocol):
    """Where embeddings are kept."""

    def get(self, fingerprint: str, templates: Sequence[str], prompts: Sequence[str]) -> dict[str, Tensor]:
        """Those of the prompts that are known, each [D] float32 on the CPU."""

    def put(self, fingerprint: str, templates: Sequence[str], embeddings: Mapping[str, Tensor]) -> None:
        """Keep embeddings, each [D] float32."""


class TextMemo:
    """Embeddings in memory, those used last: for words of strangers, which are not to fill a disk. For one thread.

    Args:
        most: how many are kept.
        behind: is asked for those that are not known here, and given none.
    """

    def __init__(self, most: int, behind: TextStore | None = None) -> None:
        self._most, self._behind = most, behind
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self.found = 0
        """Prompts that were known when they were asked for."""
        self.made = 0
        """Prompts that had to be encoded."""

    def get(self, fingerprint: str, templates: Sequence[str], prompts: Sequence[str]) -> dict[str, Tensor]:
        """Those of the prompts that are known, each [D] float32 on the CPU."""
        known: dict[str, Tensor] = {}
        for prompt in prompts:
            key = _key(fingerprint, templates, prompt)
            vector = self._kept.get(key)
            if vector is not None:
                self._kept.move_to_end(key)
                known[prompt] = vector
        others = [prompt for prompt in prompts if prompt not in known]
        if others and self._behind is not None:
            older = self._behind.get(fingerprint, templates, others)
            self._keep(fingerprint, templates, older)
            known.update(older)
        self.found += len(known)
        return known

    def missing(self, fingerprint: str, templates: Sequence[str], prompts: Sequence[str]) -> list[str]:
        """Those of the prompts that are not in memory; nothing is counted."""
        return [prompt for prompt in prompts if _key(fingerprint, templates, prompt) not in self._kept]

    def put(self, fingerprint: str, templates: Sequence[str], embeddings: Mapping[str, Tensor]) -> None:
        """Keep embeddings, each [D] float32; those that were not used for longest make room."""
        self._keep(fingerprint, templates, embeddings)
        self.made += len(embeddings)

    def _keep(self, fingerprint: str, templates: Sequence[str], embeddings: Mapping[str, Tensor]) -> None:
        for prompt, vector in embeddings.items():
            self._kept[_key(fingerprint, templates, prompt)] = vector.clone()  # not a view that holds many others
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)


class TextCache:
    """Embeddings by checkpoint, templates and prompt.

    Args:
        path: the file; None takes ``text-embeddings.sqlite`` in the cache folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or cache_folder() / "text-embeddings.sqlite"
        self._usable = True

    def get(self, fingerprint: str, templates: Sequence[str], prompts: Sequence[str]) -> dict[str, Tensor]:
        """Those of the prompts that are known, each [D] float32 on the CPU."""
        # Looking for something makes no file. Path.exists would raise where a folder may not be entered.
        if not os.path.exists(self._path):  # noqa: PTH110
            return {}
        keys = {_key(fingerprint, templates, prompt): prompt for prompt in prompts}
        wanted = list(keys)
        rows: list[tuple[bytes, bytes]] = []

        def read(database: sqlite3.Connection) -> None:
            for first in range(0, len(wanted), _AT_ONCE):
                some = wanted[first : first + _AT_ONCE]
                marks = ",".join("?" * len(some))
                rows.extend(database.execute(f"SELECT key, vector FROM embeddings WHERE key IN ({marks})", some))

        self._transact(read)
        return {keys[key]: torch.from_numpy(np.frombuffer(vector, dtype="<f4").copy()) for key, vector in rows}

    def put(self, fingerprint: str, templates: Sequence[str], embeddings: Mapping[str, Tensor]) -> None:
        """Keep embeddings, each [D] float32."""
        rows = [
            (_key(fingerprint, templates, prompt), vector.numpy().astype("<f4").tobytes())
            for prompt, vector in embeddings.items()
        ]
        self._transact(lambda database: database.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", rows))

    def _transact(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Do some work in one transaction; where the file cannot be used, warn once and do nothing from then on."""
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
                f"text embeddings are not kept: {self._path} cannot be used ({error}); "
                f"delete it, or set CLIPER_CACHE to a folder that can be written",
                stacklevel=3,
            )


def _key(fingerprint: str, templates: Sequence[str], prompt: str) -> bytes:
    return hashlib.sha256(json.dumps([fingerprint, *templates, prompt]).encode()).digest()
