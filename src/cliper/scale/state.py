"""Where a run's manifest lies while the run goes on.

On this machine that is the run's folder. An object store cannot add to a file: there the manifest is kept in a
temporary folder, and what is new of it is copied now and then as ``manifest-parts/000000.jsonl`` and so on, so that a
run that is killed loses what it did since the last copy, and no more.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cliper.scale.folder import MANIFEST, PARTS, RUN
from cliper.scale.places import Place

__all__ = ["FarState", "State", "open_state"]

# Seconds between copies of the manifest to an object store.
_EVERY = 30.0


class State:
    """The state of a run on this machine: there is nothing to copy.

    Args:
        place: the run's folder.
        folder: its path.
    """

    def __init__(self, place: Place, folder: Path) -> None:
        self.place, self.folder = place, folder

    def begun(self) -> None:
        """The run has been begun, or goes on."""

    def saved(self, *, now: bool = False) -> None:
        """To be called now and then, and at the end, with the manifest on disk."""

    def finished(self, paths: Sequence[Path]) -> list[str]:
        """Bring the files about all pictures to the run's folder; their addresses."""
        return [str(path) for path in paths]


class FarState(State):
    """The state of a run in an object store.

    Args:
        place: the run's folder.
        folder: of this machine, empty.

    Raises:
        InputError: what is there cannot be read.
    """

    def __init__(self, place: Place, folder: Path) -> None:
        super().__init__(place, folder)
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._parts = self._parts_there()
        self._copied = 0
        self._over = False
        for name in (RUN, MANIFEST):
            if place.exists(name):
                place.download(name, folder / name)
        for number, name in enumerate(self._parts):
            part = folder / f"{number}.part"
            place.download(f"{PARTS}/{name}", part)
            with (folder / MANIFEST).open("ab") as manifest:
                manifest.write(part.read_bytes())
            part.unlink()

    def begun(self) -> None:
        """Copy ``run.json``; of the manifest, what was there already need not be copied again."""
        self.place.upload(self.folder / RUN, RUN)
        manifest = self.folder / MANIFEST
        self._copied = manifest.stat().st_size if manifest.exists() else 0
        if not self._copied:
            self.place.remove(MANIFEST)
            self._remove_parts()

    def saved(self, *, now: bool = False) -> None:
        """Copy what is new, if the last copy was made some time ago."""
        with self._lock:
            if self._over or (not now and time.monotonic() - self._last < _EVERY):
                return
            self._last = time.monotonic()
            with (self.folder / MANIFEST).open("rb") as manifest:
                manifest.seek(self._copied)
                data = manifest.read()
            data = data[: data.rfind(b"\n") + 1]
            if data:
                name = f"{len(self._parts):06d}.jsonl"
                part = self.folder / "new.part"
                part.write_bytes(data)
                self.place.upload(part, f"{PARTS}/{name}")
                self._parts.append(name)
                self._copied += len(data)

    def finished(self, paths: Sequence[Path]) -> list[str]:
        """Copy them; the parts of the manifest are no longer needed."""
        names = [path.relative_to(self.folder).as_posix() for path in paths]
        self.place.upload(self.folder / RUN, RUN)  # it says now which files there are
        for path, name in zip(paths, names, strict=True):
            self.place.upload(path, name)
        self._over = True
        self._remove_parts()
        return [f"{self.place.address}/{name}" for name in names]

    def _parts_there(self) -> list[str]:
        if not self.place.exists(PARTS):
            return []
        return sorted(entry.name for entry in self.place.entries(PARTS) if not entry.folder)

    def _remove_parts(self) -> None:
        for name in self._parts:
            self.place.remove(f"{PARTS}/{name}")
        self._parts = []


@contextmanager
def open_state(address: str) -> Iterator[State]:
    """The state of the run at an address.

    Raises:
        InputError: what is there cannot be read; an unknown protocol.
        MissingExtraError: the library for the protocol is not installed.
    """
    place = Place(address)
    if place.local is not None:
        yield State(place, place.local)
        return
    with tempfile.TemporaryDirectory(prefix="cliper-") as folder:
        state = FarState(place, Path(folder))
        try:
            yield state
        finally:
            if (state.folder / MANIFEST).exists():
                state.saved(now=True)
