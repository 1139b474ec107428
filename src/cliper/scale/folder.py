"""A run's folder: who may write there, with what, and what an earlier run left there.

``run.json`` says what is being done, ``manifest.jsonl`` what has become of each picture.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from cliper.errors import InputError, OutputError
from cliper.evaluation.folder import differences, lock
from cliper.files import atomic_write
from cliper.scale.manifest import read_manifest
from cliper.scale.places import Place

__all__ = [
    "MANIFEST",
    "PARTS",
    "RUN",
    "alone",
    "begin",
    "check_run",
    "run_files",
    "set_run_files",
    "sweep",
]

RUN, MANIFEST = "run.json", "manifest.jsonl"

# Where an object store has what is new of the manifest while the run goes on.
PARTS = "manifest-parts"

# In run.json, names of the files about all pictures that were made.
_FILES = "run_files"

# What atomic_write calls a file until it is whole; a killed run leaves some behind.
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}(\.\w+)?")


def check_run(folder: Path, identity: dict[str, Any], *, shown: str, resume: bool, overwrite: bool) -> None:
    """Whether a run may write into a folder.

    Args:
        folder: with the manifest; it need not be there.
        shown: what messages call it.
        identity: what the run's files depend on.
        resume: go on with the run that is there.
        overwrite: begin anew whatever is there.

    Raises:
        InputError: there is a run, and none of the two is asked for; or it is another one than is to go on; or the
            folder is something else's, an evaluation's say.
    """
    if not (folder / MANIFEST).exists():
        if (folder / RUN).exists() and "formats" not in _read_run(folder):
            raise InputError(
                f"{RUN} in {shown} is not of a run of `cliper batch` (of an evaluation?); choose another folder with "
                "--out"
            )
        return
    if overwrite:
        return
    if not resume:
        raise InputError(
            f"{shown} holds a run already; go on with it (--resume), begin anew (--overwrite), "
            "or choose another folder with --out"
        )
    old = _read_run(folder)
    if not old:
        raise InputError(
            f"{RUN} in {shown} cannot be read, so the run cannot go on; begin anew (--overwrite), or choose another "
            "folder with --out"
        )
    old.pop(_FILES, None)
    changed = differences(old, json.loads(json.dumps(identity)))
    if changed:
        raise InputError(
            f"{shown} holds a run with another {', '.join(changed[:4])}; give what it was begun with, begin anew "
            "(--overwrite), or choose another folder with --out"
        )


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if need be, for one run: another would sweep away what this one is writing.

    The lock is on the folder itself, and a killed process lets it go.

    Raises:
        InputError: another run is at work there.
        OutputError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}; choose another with --out") from None
    try:
        lock(handle, f"another run is at work in {folder}; wait for it, or choose another folder with --out")
        yield
    finally:
        os.close(handle)


def begin(folder: Path, place: Place, identity: dict[str, Any], *, overwrite: bool) -> None:
    """Make a folder ready for a run: what an earlier one left half done, or all of it, is removed.

    Args:
        folder: of this machine, with the manifest.
        place: of the pictures' files; the same folder, unless it is far away.
        identity: what the run's files depend on.
        overwrite: whether the earlier run's files are removed.

    Raises:
        OutputError: files cannot be written or removed.
    """
    manifest = folder / MANIFEST
    files = run_files(folder)
    if overwrite:
        for record in read_manifest(manifest) if manifest.exists() else ():
            for name in record.outputs:
                _remove(place, name)
        for name in files:
            _remove(place, name)
        files = []
        Place(str(folder)).remove(MANIFEST)
    sweep(folder)
    _write_run(folder, {**identity, _FILES: files})


def run_files(folder: Path) -> list[str]:
    """Names of the files about all pictures that the run in a folder has made, as it wrote them down."""
    files = _read_run(folder).get(_FILES)
    return [name for name in files if isinstance(name, str)] if isinstance(files, list) else []


def set_run_files(folder: Path, place: Place, names: Iterable[str]) -> None:
    """Write down which files about all pictures there are; those that were written down, and are not, are removed.

    Args:
        folder: of this machine, with ``run.json``.
        place: of the files.
        names: relative, with ``/``.

    Raises:
        OutputError: files cannot be written or removed.
    """
    before, now = run_files(folder), sorted(set(names))
    for name in set(before) - set(now):
        _remove(place, name)
    if before != now:
        _write_run(folder, {**_read_run(folder), _FILES: now})


def _read_run(folder: Path) -> dict[str, Any]:
    """Empty if there is nothing that can be read."""
    try:
        values = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _write_run(folder: Path, values: dict[str, Any]) -> None:
    with atomic_write(folder / RUN) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _remove(place: Place, name: str) -> None:
    """Remove a file of a run, and the folders that are empty then; never anything outside of the run's folder."""
    if os.path.isabs(name) or ".." in name.split("/"):  # noqa: PTH117
        return
    place.remove(name)
    if place.local is not None:
        with contextlib.suppress(OSError):  # one of them is not empty
            for folder in list(PurePosixPath(name).parents)[:-1]:
                (place.local / folder).rmdir()


def sweep(folder: Path) -> None:
    """Remove the temporary files of a run that was killed.

    Raises:
        OutputError: one cannot be removed.
    """
    for here, _, files in os.walk(folder):
        for name in files:
            if name.startswith(".") and _TEMPORARY.fullmatch(name):
                Place(here).remove(name)
