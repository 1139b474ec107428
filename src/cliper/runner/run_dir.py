"""The folder of a run: ``run.json`` with its configuration, ``manifest.jsonl`` with the state of each image.

An object store cannot append to a file: there the manifest is kept in a temporary folder, and its new lines are copied
now and then as ``manifest-parts/000000.jsonl`` and so on. A run that is killed loses what it did since the last copy.
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

from cliper.errors import InputError, OutputError
from cliper.files import write_text
from cliper.runner.manifest import read_manifest
from cliper.runner.storage import Storage, hide_credentials

__all__ = ["MANIFEST", "PARTS", "RUN", "RunDir", "config_diff", "open_run_dir", "remove_temporary_files"]

RUN, MANIFEST, PARTS = "run.json", "manifest.jsonl", "manifest-parts"

_SYNC_INTERVAL = 30.0  # seconds between copies of the manifest to an object store

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
        run_dir = RemoteRunDir(storage, Path(folder))
        try:
            yield run_dir
        finally:
            if run_dir.manifest.exists():
                run_dir.sync(now=True)


class RunDir:
    """A run directory; ``folder``, on this machine, has manifest and ``run.json``, ``storage`` the images' files."""

    def __init__(self, storage: Storage, folder: Path) -> None:
        self.storage, self.folder = storage, folder

    @property
    def manifest(self) -> Path:
        """Path of the manifest."""
        return self.folder / MANIFEST

    def check(self, task: str, config: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
        """Check that a run of a kind and configuration may use the folder.

        Raises:
            InputError: the folder holds a run, and neither is asked for; or it holds another run than this one.
        """
        shown, old = hide_credentials(self.storage.uri), self._read()
        if old and old.get("task") != task:
            raise InputError(
                f"{shown} holds a run of another kind ({old.get('task', 'unknown')}, not {task}); choose another "
                "folder with --out"
            )
        if overwrite or not self.manifest.exists():
            return
        if not resume:
            raise InputError(
                f"{shown} holds a run already; continue it (--resume), start again (--overwrite), "
                "or choose another folder with --out"
            )
        if not old:
            raise InputError(
                f"{RUN} in {shown} cannot be read, so the run cannot be continued; start again (--overwrite), or "
                "choose another folder with --out"
            )
        changed = config_diff(old.get("config", {}), json.loads(json.dumps(config)))
        if changed:
            raise InputError(
                f"{shown} holds a run with another {', '.join(changed[:4])}; give what it was started with, start "
                "again (--overwrite), or choose another folder with --out"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder, which is made if need be; the system unlocks it if the process is killed.

        Raises InputError if another run uses it, OutputError if it cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise OutputError(
                f"cannot write {self.folder}: {error.strerror or error}; choose another with --out"
            ) from None
        try:
            _lock(handle, self.folder)
            yield
        finally:
            os.close(handle)

    def start(self, task: str, config: Mapping[str, Any], *, overwrite: bool) -> None:
        """Prepare the folder: remove what a killed run left half done, and with ``overwrite`` all files of the run."""
        files = self.run_files
        if overwrite:
            for record in read_manifest(self.manifest) if self.manifest.exists() else ():
                for name in record.outputs:
                    self._remove(name)
            for name in files:
                self._remove(name)
            files = []
            self.manifest.unlink(missing_ok=True)
        remove_temporary_files(self.folder)
        self._write({"task": task, "config": config, "run_files": files})

    @property
    def run_files(self) -> list[str]:
        """Names of the files about all images."""
        files = self._read().get("run_files")
        return [name for name in files if isinstance(name, str)] if isinstance(files, list) else []

    def set_run_files(self, names: Iterable[str], summary: Mapping[str, Any]) -> None:
        """Note the files about all images and a summary in ``run.json``; other files of that kind are removed."""
        names = sorted(set(names))
        for name in set(self.run_files) - set(names):
            self._remove(name)
        self._write({**self._read(), "run_files": names, "summary": summary})

    def sync(self, *, now: bool = False) -> None:
        """Copy new lines of the manifest to the storage, if the last copy was made some time ago."""

    def finish(self, paths: Sequence[Path]) -> list[str]:
        """Copy the files about all images to the storage; their addresses."""
        return [str(path) for path in paths]

    def _read(self) -> dict[str, Any]:
        """``run.json``; empty if it cannot be read."""
        try:
            values = json.loads((self.folder / RUN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    def _write(self, values: Mapping[str, Any]) -> None:
        write_text(self.folder / RUN, json.dumps(values, indent=1) + "\n")

    def _remove(self, name: str) -> None:
        """Remove a file of the run, and folders that are empty then; nothing outside of the folder."""
        if os.path.isabs(name) or ".." in name.split("/"):  # noqa: PTH117
            return
        self.storage.remove(name)
        if self.storage.local is not None:
            with contextlib.suppress(OSError):  # not empty
                for folder in list(PurePosixPath(name).parents)[:-1]:
                    (self.storage.local / folder).rmdir()


class RemoteRunDir(RunDir):
    """A run directory in an object store; ``folder`` is an empty folder of this machine."""

    def __init__(self, storage: Storage, folder: Path) -> None:
        super().__init__(storage, folder)
        self._lock = threading.Lock()
        self._last_sync = time.monotonic()
        self._is_final = False
        for name in (RUN, MANIFEST):
            if storage.exists(name):
                storage.download(name, folder / name)
        self._parts = sorted(name for name, _ in storage.entries(PARTS)) if storage.exists(PARTS) else []
        for name in self._parts:
            storage.download(f"{PARTS}/{name}", folder / "part")
            with self.manifest.open("ab") as manifest:
                manifest.write((folder / "part").read_bytes())
        self._synced = self.manifest.stat().st_size if self.manifest.exists() else 0

    def start(self, task: str, config: Mapping[str, Any], *, overwrite: bool) -> None:
        """As of a local one; ``run.json`` is copied."""
        super().start(task, config, overwrite=overwrite)
        self.storage.upload(self.folder / RUN, RUN)
        if not self.manifest.exists():
            self._synced = 0
            self.storage.remove(MANIFEST)
            self._remove_parts()

    def sync(self, *, now: bool = False) -> None:
        """Copy new lines of the manifest as another part."""
        with self._lock:
            if self._is_final or (not now and time.monotonic() - self._last_sync < _SYNC_INTERVAL):
                return
            self._last_sync = time.monotonic()
            with self.manifest.open("rb") as manifest:
                manifest.seek(self._synced)
                lines = manifest.read()
            lines = lines[: lines.rfind(b"\n") + 1]
            if lines:
                name = f"{len(self._parts):06d}.jsonl"
                (self.folder / "part").write_bytes(lines)
                self.storage.upload(self.folder / "part", f"{PARTS}/{name}")
                self._parts.append(name)
                self._synced += len(lines)

    def finish(self, paths: Sequence[Path]) -> list[str]:
        """As of a local one; parts of the manifest are removed."""
        names = [RUN, *(path.relative_to(self.folder).as_posix() for path in paths)]
        for name in names:
            self.storage.upload(self.folder / name, name)
        self._is_final = True
        self._remove_parts()
        return [hide_credentials(f"{self.storage.uri}/{name}") for name in names[1:]]

    def _remove_parts(self) -> None:
        for name in self._parts:
            self.storage.remove(f"{PARTS}/{name}")
        self._parts = []


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
    try:
        import fcntl
    except ImportError:  # a system without such locks
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"another run uses {folder}; wait until it ends, or choose another folder with --out"
        ) from None
    except OSError:  # a file system without locks
        return
