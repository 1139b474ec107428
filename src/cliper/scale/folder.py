"""A run's folder: who may write there, with what, and what an earlier run left there.

``run.json`` says what is being done, ``manifest.jsonl`` what has become of each picture.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cliper.errors import InputError, OutputError
from cliper.evaluation.folder import differences, lock
from cliper.formats import atomic_path
from cliper.scale.manifest import read_manifest
from cliper.scale.places import Place

__all__ = ["MANIFEST", "RUN", "alone", "begin", "check_folder", "check_run", "sweep"]

RUN, MANIFEST = "run.json", "manifest.jsonl"

# What atomic_path calls a file until it is whole; a killed run leaves some behind.
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}(\.\w+)?")


def check_folder(out: Path) -> None:
    """Whether files can be written below a folder, made or not, before anything is computed.

    Raises:
        OutputError: they cannot.
    """
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"expected a folder that can be written, got {out}; choose another with --out")


def check_run(folder: Path, identity: dict[str, Any], *, shown: str, resume: bool, overwrite: bool) -> None:
    """Whether a run may write into a folder.

    Args:
        folder: with the manifest; it need not be there.
        shown: what messages call it.
        identity: what the run's files depend on.
        resume: go on with the run that is there.
        overwrite: begin anew whatever is there.

    Raises:
        InputError: there is a run, and none of the two is asked for; or it is another one than is to go on.
    """
    if overwrite or not (folder / MANIFEST).exists():
        return
    if not resume:
        raise InputError(
            f"{shown} holds a run already; go on with it (--resume), begin anew (--overwrite), "
            "or choose another folder with --out"
        )
    try:
        old = json.loads((folder / RUN).read_text(encoding="utf-8"))
        changed = differences(old, json.loads(json.dumps(identity)))
    except (OSError, ValueError, AttributeError):
        raise InputError(
            f"{RUN} in {shown} cannot be read, so the run cannot go on; begin anew (--overwrite), or choose another "
            "folder with --out"
        ) from None
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
    if overwrite and manifest.exists():
        for record in read_manifest(manifest):
            for name in record.outputs:
                if not os.path.isabs(name) and ".." not in name.split("/"):  # noqa: PTH117
                    place.remove(name)
        Place(str(folder)).remove(MANIFEST)
    sweep(folder)
    with atomic_path(folder / RUN) as temporary:
        temporary.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")


def sweep(folder: Path) -> None:
    """Remove the temporary files of a run that was killed.

    Raises:
        OutputError: one cannot be removed.
    """
    for here, _, files in os.walk(folder):
        for name in files:
            if name.startswith(".") and _TEMPORARY.fullmatch(name):
                Place(here).remove(name)
