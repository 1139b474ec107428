"""The folder of an evaluation: one run at a time, and never two evaluations in one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cliper.errors import InputError, OutputError

__all__ = ["claimed", "differences", "lock"]

_RUN, _LOCK = "run.json", ".lock"


@contextlib.contextmanager
def claimed(folder: Path, identity: Mapping[str, Any]) -> Iterator[str]:
    """Hold a folder for an evaluation; it is made, and what is evaluated is written down, if it is new.

    Args:
        folder: where records are kept.
        identity: all that the numbers depend on, as plain values.

    Yields:
        The name of the run, for its records: the same for the same identity.

    Raises:
        InputError: the folder holds another evaluation (the message says what differs), or another run is at work.
        OutputError: it cannot be written.
    """
    plain = json.loads(json.dumps(identity))
    with _alone(folder):
        _check(folder, plain)
        yield hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Names of the values in which two identities differ, such as ``"model.sha256"``."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}")
    return found


def _check(folder: Path, identity: dict[str, Any]) -> None:
    from cliper.files import atomic_write

    path = folder / _RUN
    if not path.is_file():
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")
        return
    try:
        changed = differences(json.loads(path.read_text(encoding="utf-8")), identity)
    except (OSError, ValueError, AttributeError):
        raise InputError(
            f"{path}: cannot be read; choose another folder with --out, or delete the whole folder"
        ) from None
    if changed:
        raise InputError(
            f"{folder} holds another evaluation (it differs in {', '.join(changed[:4])}); "
            f"choose another folder with --out, or delete the whole folder"
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """A lock of the system's, which a killed process lets go, on a file that is never replaced."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}; choose another folder") from None
    try:
        lock(handle, f"{folder}: another run is at work there; wait for it, or choose another folder with --out")
        yield
    finally:
        os.close(handle)


def lock(handle: int, refusal: str) -> None:
    """Lock an open file or folder until it is closed; where there are no such locks, do nothing.

    Raises:
        InputError: another process has the lock; the message is ``refusal``.
    """
    try:
        import fcntl
    except ImportError:  # a system without such locks
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(refusal) from None
    except OSError:  # a file system without locks
        return
