"""The folder of a run: ``run.json`` with its configuration, ``manifest.jsonl`` with the state of each image.

An object store cannot append to a file: there the manifest is kept in a temporary folder, and copied now and then. A
run that is killed loses what it did since the last copy.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cliper.errors import InputError, OutputError, reraise
from cliper.files import write_text
from cliper.runner.manifest import read_manifest
from cliper.runner.storage import Storage, hide_credentials

__all__ = ["MANIFEST", "RUN", "RunDir", "config_diff", "open_run_dir", "remove_temporary_files"]

RUN, MANIFEST = "run.json", "manifest.jsonl"

# Seconds between copies of the manifest to an object store; a large one takes at most a twentieth of the time.
_SYNC_INTERVAL, _SYNC_SHARE = 30.0, 20

# The temporary names of cliper.files.atomic_write, which a killed run leaves behind.
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}(\.\w+)?")


@contextlib.contextmanager
def open_run_dir(uri: str) -> Iterator[RunDir]:
    """The run directory at an address; nothing is written yet. Raises as :class:`Storage`."""
    storage = Storage(uri)
    if storage.local is not None:
        yield RunDir(storage, storage.local)
        return
    with tempfile.TemporaryDirectory(prefix="cliper-") as folder:
        run_dir = RunDir(storage, Path(folder))
        for name in (RUN, MANIFEST):
            if storage.exists(name):
                storage.download(name, run_dir.folder / name)
        if run_dir.manifest.exists():
            run_dir.synced_size = run_dir.manifest.stat().st_size
        try:
            yield run_dir
        finally:
            run_dir.sync(now=True)


class RunDir:
    """A run directory: ``folder``, on this machine, has ``manifest`` and ``run.json``, ``storage`` images' files."""

    def __init__(self, storage: Storage, folder: Path) -> None:
        self.storage, self.folder, self.manifest = storage, folder, folder / MANIFEST
        self._lock = threading.Lock()
        self._next_sync = 0.0
        self.synced_size = 0  # of the manifest's last copy
        self._uploads: dict[str, list[str]] = {}  # of a run that was killed, by file name

    def check(self, task: str, config: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
        """Raise InputError if the folder holds another run than this one, or neither flag is given for this one."""
        shown, old = hide_credentials(self.storage.uri), self._read()
        advice = "start again (--overwrite), or choose another folder with --out"
        if old and old.get("task") != task:
            kind = old.get("task", "unknown")
            raise InputError(f"{shown} holds a run of another kind ({kind}, not {task}); choose another with --out")
        if overwrite or not self.manifest.exists():
            return
        if not resume:
            raise InputError(f"{shown} holds a run already; continue it (--resume), {advice}")
        if not old:
            raise InputError(f"{RUN} in {shown} cannot be read, so the run cannot be continued; {advice}")
        changed = config_diff(old.get("config", {}), json.loads(json.dumps(config)))
        if changed:
            names = ", ".join(changed[:4])
            raise InputError(f"{shown} holds a run that differs in {names}; give what it was started with, {advice}")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder, which is made if need be; the system unlocks it if the process is killed."""
        with reraise(OSError, OutputError, f"cannot write {self.folder}", "choose another with --out"):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder, os.O_RDONLY)
        try:
            _lock(handle, self.folder)
            yield
        finally:
            os.close(handle)

    def start(self, task: str, config: Mapping[str, Any], *, overwrite: bool) -> None:
        """Prepare the folder: remove what a killed run left half done, and with ``overwrite`` all files of the run."""
        files = self._read().get("run_files", [])
        if overwrite:
            records = read_manifest(self.manifest) if self.manifest.exists() else ()
            for name in [*(name for record in records for name in record.outputs), *files, MANIFEST]:
                self._remove(name)
            files = []
            self.manifest.unlink(missing_ok=True)
            self.synced_size = 0
        remove_temporary_files(self.folder)
        self._write({"task": task, "config": config, "run_files": files})
        self._uploads = self.storage.unfinished_uploads()

    def abort_uploads(self, names: Iterable[str]) -> None:
        """Remove what a run that was killed while it uploaded files of these names left in the object store."""
        for name in names:
            for upload in self._uploads.pop(name, ()):
                self.storage.abort_upload(name, upload)

    def sync(self, *, now: bool = False) -> None:
        """Copy the manifest to the object store after a change, if the last copy was made some time ago."""
        if self.storage.local is not None or not self.manifest.exists():
            return
        with self._lock:
            size, started = self.manifest.stat().st_size, time.monotonic()
            if size == self.synced_size or (not now and started < self._next_sync):
                return
            self.storage.upload(self.manifest, MANIFEST)
            self.synced_size = size
            seconds = time.monotonic() - started
            self._next_sync = started + max(_SYNC_INTERVAL, _SYNC_SHARE * seconds)

    def finish(self, paths: Sequence[Path], summary: Mapping[str, Any]) -> list[str]:
        """Note the files about all images and a summary in ``run.json``, and copy all to the storage.

        Earlier files of that kind are removed. Returns the addresses of manifest and files.
        """
        names = [path.relative_to(self.folder).as_posix() for path in paths]
        for name in set(self._read().get("run_files", [])) - set(names):
            self._remove(name)
        self._write({**self._read(), "run_files": sorted(set(names)), "summary": summary})
        if self.storage.local is not None:
            return [str(self.manifest), *map(str, paths)]
        self.abort_uploads([RUN, MANIFEST, *names])
        for name in (*names, MANIFEST):
            self.storage.upload(self.folder / name, name)
        self.synced_size = self.manifest.stat().st_size
        return [hide_credentials(f"{self.storage.uri}/{name}") for name in (MANIFEST, *names)]

    def _read(self) -> dict[str, Any]:
        """``run.json``; empty if it cannot be read."""
        try:
            values = json.loads((self.folder / RUN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    def _write(self, values: Mapping[str, Any]) -> None:
        write_text(self.folder / RUN, json.dumps(values, indent=1) + "\n")
        if self.storage.local is None:
            self.storage.upload(self.folder / RUN, RUN)

    def _remove(self, name: str) -> None:
        """Remove a file of the run, and folders that are empty then; nothing outside of the folder."""
        if os.path.isabs(name) or ".." in name.split("/"):  # noqa: PTH117
            return
        self.storage.remove(name)
        if self.storage.local is not None:
            with contextlib.suppress(OSError):  # not empty
                for folder in list(PurePosixPath(name).parents)[:-1]:
                    (self.storage.local / folder).rmdir()


def config_diff(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Names of the values in which two configurations differ, such as ``"model.sha256"``."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += config_diff(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}")
    return found


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files of a run that was killed."""
    for path, _, files in os.walk(folder):
        for name in files:
            if name.startswith(".") and _TEMPORARY.fullmatch(name):
                Storage(path).remove(name)


def _lock(handle: int, folder: Path) -> None:
    import fcntl

    with contextlib.suppress(OSError):  # a file system without locks
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            advice = "wait until it ends, or choose another folder with --out"
            raise InputError(f"another run uses {folder}; {advice}") from None
