"""Files and folders, here or in an object store.

An address with a protocol (``s3://bucket/photos``) goes through fsspec, any other is a path of this machine. Addresses
that people give go through :func:`plain_address` first.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cliper.errors import InputError, MissingExtraError, OutputError, quote_path, short_reason

__all__ = ["Entry", "Place", "folder_name", "folder_of", "is_remote", "join", "open_file", "plain_address"]

_HERE = ("file", "local")  # protocols of this machine


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a folder.

    Args:
        name: its last part.
        folder: whether it is a folder.
    """

    name: str
    folder: bool


def plain_address(address: str) -> str:
    """An address as all else takes it: one of this machine is a path.

    Example:
        >>> plain_address("file:///data/photos"), plain_address("s3://bucket/photos"), plain_address("photos")
        ('/data/photos', 's3://bucket/photos', 'photos')
    """
    protocol, mark, path = address.partition("://")
    return (path or ".") if mark and protocol in _HERE else address


def is_remote(address: str) -> bool:
    """Whether an address names a protocol other than those of this machine.

    Example:
        >>> is_remote("s3://bucket/photos"), is_remote("photos")
        (True, False)
    """
    protocol, mark, _ = address.partition("://")
    return bool(mark) and protocol not in ("", *_HERE)


def join(address: str, name: str) -> str:
    """The address of what is called ``name`` below ``address``.

    Example:
        >>> join("s3://bucket/photos/", "a/b.jpg")
        's3://bucket/photos/a/b.jpg'
    """
    if not is_remote(address):
        return os.path.join(address, name)  # noqa: PTH118
    folder = _without_slash(address)
    return folder + name if folder.endswith("://") else f"{folder}/{name}"


def folder_of(address: str) -> str:
    """The address of the folder that a file lies in.

    Example:
        >>> folder_of("s3://bucket/photos/list.txt"), folder_of("memory://list.txt"), folder_of("photos/list.txt")
        ('s3://bucket/photos', 'memory://', 'photos')
    """
    if not is_remote(address):
        return str(Path(address).parent)
    protocol, _, path = address.partition("://")
    return f"{protocol}://{path.rpartition('/')[0]}"


def folder_name(address: str, *, is_folder: bool) -> str:
    """What a folder is called, or the folder that a file lies in; empty if it is a root.

    Example:
        >>> folder_name("s3://bucket/photos", is_folder=True), folder_name("/data/photos/list.txt", is_folder=False)
        ('photos', 'photos')
    """
    folder = address if is_folder else folder_of(address)
    if is_remote(folder):
        return _without_slash(folder).partition("://")[2].rpartition("/")[2]
    return Path(os.path.realpath(folder)).name


def open_file(address: str) -> IO[bytes]:
    """Open a file for reading; seekable.

    Raises:
        OSError: it cannot be opened.
        InputError: its protocol is unknown.
        MissingExtraError: the library for its protocol is not installed.
    """
    if not is_remote(address):
        return Path(address).open("rb")
    system, path = _system(address)
    stream: IO[bytes] = system.open(path, "rb")
    return stream


class Place:
    """A folder by its address; cheap to make, so that each process has its own.

    Args:
        address: path, or address with a protocol.

    Raises:
        InputError: an unknown protocol.
        MissingExtraError: the library for the protocol is not installed.
    """

    def __init__(self, address: str) -> None:
        self.local: Path | None = None
        """The folder's path, if it is on this machine."""
        self._system: Any = None
        if is_remote(address):
            self.address = _without_slash(address)
            self._system, self._root = _system(self.address)
        else:
            self.local = Path(plain_address(address))
            self.address = str(self.local)

    def is_folder(self) -> bool:
        """Whether there is such a folder."""
        return self.local.is_dir() if self.local is not None else bool(self._system.isdir(self._root))

    def is_file(self) -> bool:
        """Whether there is a file, or a pipe or device, in the folder's place."""
        if self.local is not None:
            return self.local.exists() and not self.local.is_dir()
        return bool(self._system.isfile(self._root))

    def entries(self, name: str = "") -> Iterator[Entry]:
        """What is in the folder, or in one below it; in no order.

        Raises:
            OSError: it cannot be listed.
        """
        if self.local is not None:
            with os.scandir(self.local / name) as found:
                yield from (Entry(one.name, _is_folder(one)) for one in found)
            return
        for one in self._system.ls(self._path(name), detail=True, refresh=True):
            last = str(one["name"]).rstrip("/").rpartition("/")[2]
            if last and one["name"].rstrip("/") != self._path(name).rstrip("/"):  # some list the folder itself
                yield Entry(last, one["type"] == "directory")

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        if self.local is not None:
            return os.path.exists(os.path.join(self.local, name))  # noqa: PTH110, PTH118 - called for each picture
        return bool(self._system.exists(self._path(name)))

    def put(self, name: str, write: Callable[[Path], Any]) -> None:
        """Make a file: whole, or not at all.

        Args:
            name: relative, with ``/``.
            write: is given a path to write to, in the way of :func:`cliper.files.atomic_write`.

        Raises:
            OutputError: it cannot be written.
        """
        if self.local is not None:
            write(self.local / name)
            return
        with tempfile.TemporaryDirectory(prefix="cliper-") as folder:
            path = Path(folder) / PurePosixPath(name).name
            write(path)
            self.upload(path, name)

    def upload(self, path: Path, name: str) -> None:
        """Copy a file of this machine to an object store, which shows it once it is whole.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            self._system.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            self._system.put_file(str(path), self._path(name))
        except Exception as error:  # each store has exceptions of its own
            raise _cannot_write(join(self.address, name), error) from error

    def download(self, name: str, path: Path) -> None:
        """Copy a file of an object store to this machine.

        Raises:
            InputError: it cannot be read.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._system.get_file(self._path(name), str(path))
        except Exception as error:
            raise InputError(
                f"expected a file at {quote_path(join(self.address, name))}, could not read it "
                f"({short_reason(error)}); check the address"
            ) from error

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            OutputError: it cannot be removed.
        """
        try:
            if self.local is not None:
                (self.local / name).unlink(missing_ok=True)
            elif self._system.exists(self._path(name)):
                self._system.rm_file(self._path(name))
        except Exception as error:
            raise _cannot_write(join(self.address, name), error) from error

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}" if name else str(self._root)


def _without_slash(address: str) -> str:
    protocol, _, path = address.partition("://")
    return f"{protocol}://{path.rstrip('/')}"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, say: whoever opens it is told
        return False


def _system(address: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise MissingExtraError(
            f"{quote_path(address)} needs a library that is not installed ({short_reason(error)})"
        ) from None
    except ValueError as error:
        raise InputError(
            f"expected a path or an address such as s3://bucket/folder, got {quote_path(address)} "
            f"({short_reason(error)})"
        ) from None
    return system, str(path)


def _cannot_write(address: str, error: Exception) -> OutputError:
    reason = short_reason(error)
    return OutputError(f"cannot write {quote_path(address)}: {reason}; check the address and the rights to write there")
