"""Files and folders, on this machine or in an object store.

An address with a protocol (``s3://bucket/photos``) goes through fsspec, any other is a path of this machine. Addresses
that a user gives go through :func:`normalize_uri` first.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cliper.errors import InputError, MissingExtraError, OutputError, quote_path, short_reason

__all__ = [
    "Storage",
    "folder_name",
    "hide_credentials",
    "is_remote",
    "join",
    "normalize_uri",
    "open_file",
    "parent_uri",
    "quote_uri",
    "storage_reason",
]

_LOCAL_PROTOCOLS = ("file", "local")

# Errors that are about the file's own name: the next file may be written.
_PER_FILE_ERRNOS = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EILSEQ, errno.EINVAL}

_USER_INFO = re.compile(r"(?<=://)[^/\s'\"]*@")
_HTTP_QUERY = re.compile(r"(https?://[^\s'\"?]*)\?[^\s'\"]*")


def normalize_uri(uri: str) -> str:
    """The path of an address of this machine (``file:///data``); other addresses and paths stay as they are."""
    protocol, mark, path = uri.partition("://")
    return (path or ".") if mark and protocol in _LOCAL_PROTOCOLS else uri


def is_remote(uri: str) -> bool:
    """Whether an address names a protocol other than those of this machine."""
    protocol, mark, _ = uri.partition("://")
    return bool(mark) and protocol not in ("", *_LOCAL_PROTOCOLS)


def hide_credentials(text: str) -> str:
    """A text without what addresses in it carry to log in: user, password, and the query of web addresses.

    Example:
        >>> hide_credentials("s3://key:secret@bucket/a.jpg and https://host/a.jpg?signature=1")
        's3://bucket/a.jpg and https://host/a.jpg'
    """
    return _HTTP_QUERY.sub(r"\1", _USER_INFO.sub("", text))


def quote_uri(uri: str) -> str:
    """A path or address for a message: quoted, on one line, without credentials."""
    return quote_path(hide_credentials(uri))


def storage_reason(error: BaseException, uri: str) -> str:
    """The text of an exception of any storage library for a message: one line without the credentials of ``uri``."""
    user = _USER_INFO.search(uri)
    text = short_reason(error)
    return hide_credentials(text.replace(user[0], "") if user else text)


def join(uri: str, name: str) -> str:
    """The address of ``name`` below ``uri``."""
    if not is_remote(uri):
        return os.path.join(uri, name)  # noqa: PTH118
    folder = _strip_slash(uri)
    return folder + name if folder.endswith("://") else f"{folder}/{name}"


def parent_uri(uri: str) -> str:
    """The address of the folder of a file."""
    if not is_remote(uri):
        return str(Path(uri).parent)
    protocol, _, path = uri.partition("://")
    return f"{protocol}://{path.rpartition('/')[0]}"


def folder_name(uri: str, *, is_folder: bool) -> str:
    """The name of a folder, or of the folder of a file; empty for a root."""
    folder = uri if is_folder else parent_uri(uri)
    if is_remote(folder):
        return _strip_slash(hide_credentials(folder)).partition("://")[2].rpartition("/")[2]
    return Path(os.path.realpath(folder)).name


def open_file(uri: str) -> IO[bytes]:
    """Open a file for reading; seekable. Object stores raise exceptions of their own."""
    if not is_remote(uri):
        return Path(uri).open("rb")
    system, path = _file_system(uri)
    stream: IO[bytes] = system.open(path, "rb")
    return stream


class Storage:
    """A folder by its path or address; cheap to make, so that each process has its own.

    Raises:
        InputError: an unknown protocol.
        MissingExtraError: the library for the protocol is not installed.
    """

    def __init__(self, uri: str) -> None:
        self.local: Path | None = None
        """The folder's path, if it is on this machine."""
        self._system: Any = None
        if is_remote(uri):
            self.uri = _strip_slash(uri)
            self._system, self._root = _file_system(self.uri)
        else:
            self.local = Path(normalize_uri(uri))
            self.uri = str(self.local)

    def is_folder(self) -> bool:
        """Whether there is such a folder."""
        return self.local.is_dir() if self.local is not None else bool(self._system.isdir(self._root))

    def is_file(self) -> bool:
        """Whether there is a file, pipe or device at the address of the folder."""
        if self.local is not None:
            return self.local.exists() and not self.local.is_dir()
        return bool(self._system.isfile(self._root))

    def entries(self, name: str = "") -> Iterator[tuple[str, bool]]:
        """Names in the folder, or in a folder below it, each with whether it is a folder; in no order.

        Raises:
            OSError: it cannot be listed.
        """
        if self.local is not None:
            with os.scandir(self.local / name) as found:
                yield from ((one.name, _is_folder(one)) for one in found)
            return
        for one in self._system.ls(self._path(name), detail=True, refresh=True):
            last = str(one["name"]).rstrip("/").rpartition("/")[2]
            if last and one["name"].rstrip("/") != self._path(name).rstrip("/"):  # some list the folder itself
                yield last, one["type"] == "directory"

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        if self.local is not None:
            return os.path.exists(os.path.join(self.local, name))  # noqa: PTH110, PTH118 - called for each image
        return bool(self._system.exists(self._path(name)))

    def put(self, name: str, write: Callable[[Path], Any]) -> None:
        """Make a file, whole or not at all; ``write`` is called with a path, and writes atomically.

        Raises:
            OutputError: it cannot be written, or the folder was removed.
        """
        if self.local is not None:
            if not self.local.is_dir():  # writing would make it again, without what it held
                raise _removed_error(self.uri)
            write(self.local / name)
            return
        with tempfile.TemporaryDirectory(prefix="cliper-") as folder:
            path = Path(folder) / PurePosixPath(name).name
            write(path)
            self.upload(path, name)

    def upload(self, path: Path, name: str) -> None:
        """Copy a file of this machine to an object store. A bucket that does not exist is an error.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            self._system.put_file(str(path), self._path(name))
        except Exception as error:  # each store has exceptions of its own
            raise _write_error(join(self.uri, name), error) from error

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
                f"expected a file at {quote_uri(join(self.uri, name))}, could not read it "
                f"({storage_reason(error, self.uri)}); check the address"
            ) from error

    def remove(self, name: str) -> None:
        """Remove a file, if it exists.

        Raises:
            OutputError: it cannot be removed.
        """
        try:
            if self.local is not None:
                (self.local / name).unlink(missing_ok=True)
            elif self._system.exists(self._path(name)):
                self._system.rm_file(self._path(name))
        except Exception as error:
            raise _write_error(join(self.uri, name), error) from error

    def is_fatal(self, error: Exception) -> bool:
        """Whether an error of :meth:`put` would meet the next file, too: a full disk, not a name that is refused."""
        if not isinstance(error, OutputError):
            return False
        cause = error.__cause__
        if self.local is None:
            return isinstance(cause, FileNotFoundError | ConnectionError | TimeoutError)
        return isinstance(cause, OSError) and cause.errno not in _PER_FILE_ERRNOS

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}" if name else str(self._root)


def _strip_slash(uri: str) -> str:
    protocol, _, path = uri.partition("://")
    return f"{protocol}://{path.rstrip('/')}"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, say: opening it is an error with a message
        return False


def _file_system(uri: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(uri)
    except ImportError as error:
        raise MissingExtraError(
            f"{quote_uri(uri)} needs a library that is not installed ({storage_reason(error, uri)})"
        ) from None
    except ValueError as error:
        raise InputError(
            f"expected a path or an address such as s3://bucket/folder, got {quote_uri(uri)} "
            f"({storage_reason(error, uri)})"
        ) from None
    return system, str(path)


def _removed_error(uri: str) -> OutputError:
    error = OutputError(f"cannot write {quote_uri(uri)}: the folder was removed during the run; start again")
    error.__cause__ = FileNotFoundError(errno.ENOENT, "the folder was removed")
    return error


def _write_error(uri: str, error: Exception) -> OutputError:
    return OutputError(
        f"cannot write {quote_uri(uri)}: {storage_reason(error, uri)}; check the address and the rights to write there"
    )
