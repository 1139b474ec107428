"""Files and folders, on this machine or in an object store.

An address with a protocol (``s3://bucket/photos``) goes through fsspec, any other is a path of this machine. Addresses
that a user gives go through :func:`normalize_uri` first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cliper.errors import CliperError, InputError, MissingExtraError, OutputError, quote_path, short_reason

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
    "storage_errors",
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


@contextlib.contextmanager
def storage_errors(error: type[CliperError], message: str, uri: str, advice: str) -> Iterator[None]:
    """Replace exceptions of any storage library by ``error``, with the text "message (reason); advice".

    Exceptions of this package pass unchanged. The credentials of ``uri`` are removed from the reason.
    """
    try:
        yield
    except CliperError:
        raise
    except Exception as cause:
        user = _USER_INFO.search(uri)
        text = "out of memory" if isinstance(cause, MemoryError) else short_reason(cause)
        reason = hide_credentials(text.replace(user[0] if user else "\0", ""))
        raise error(f"{message} ({reason}); {advice}") from cause


def join(uri: str, name: str) -> str:
    """The address of ``name`` below ``uri``; the folder itself without a name."""
    if not is_remote(uri):
        return os.path.join(uri, name) if name else uri  # noqa: PTH118
    folder = _strip_slash(uri)
    return folder + name if folder.endswith("://") or not name else f"{folder}/{name}"


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

    Raises InputError for an unknown protocol, MissingExtraError if the protocol's library is not installed.
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

    def entries(self, name: str = "") -> Iterator[tuple[str, bool]]:
        """Names in the folder, or in a folder below it, each with whether it is a folder; in no order."""
        if self.local is not None:
            with os.scandir(self.local / name) as found:
                yield from ((one.name, _is_folder(one)) for one in found)
            return
        for one in self._system.ls(self._path(name), detail=True, refresh=True):
            last = str(one["name"]).rstrip("/").rpartition("/")[2]
            if last and one["name"].rstrip("/") != self._path(name).rstrip("/"):  # some list the folder itself
                yield last, one["type"] == "directory"

    def exists(self, name: str = "") -> bool:
        """Whether there is a file of that name, or anything at the address of the folder."""
        if self.local is not None:
            return os.path.exists(join(self.uri, name))  # noqa: PTH110 - called for each image
        return bool(self._system.exists(self._path(name)))

    def put(self, name: str, write: Callable[[Path], Any]) -> None:
        """Make a file, whole or not at all; ``write`` is called with a path, and writes atomically.

        Raises OutputError if it cannot be written, or the folder was removed.
        """
        if self.local is not None:
            if not self.local.is_dir():  # writing would make it again, without what it held
                cause = FileNotFoundError(errno.ENOENT, "the folder was removed")
                raise OutputError(f"{self._cannot_write()}: it was removed during the run; start again") from cause
            write(self.local / name)
            return
        with tempfile.TemporaryDirectory(prefix="cliper-") as folder:
            path = Path(folder) / PurePosixPath(name).name
            write(path)
            self.upload(path, name)

    def upload(self, path: Path, name: str) -> None:
        """Copy a file of this machine to an object store. Raises OutputError, also if there is no such bucket."""
        with self._write_errors(name):
            self._system.put_file(str(path), self._path(name))

    def download(self, name: str, path: Path) -> None:
        """Copy a file of an object store to this machine. Raises InputError if it cannot be read."""
        message = f"expected a file at {quote_uri(join(self.uri, name))}, could not read it"
        with storage_errors(InputError, message, self.uri, "check the address"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._system.get_file(self._path(name), str(path))

    def remove(self, name: str) -> None:
        """Remove a file, if it exists. Raises OutputError if it cannot be removed."""
        with self._write_errors(name):
            if self.local is not None:
                (self.local / name).unlink(missing_ok=True)
            elif self._system.exists(self._path(name)):
                self._system.rm_file(self._path(name))

    def unfinished_uploads(self) -> dict[str, list[str]]:
        """Uploads in several parts that were started and not finished: their numbers by file name.

        S3 keeps, and charges for, those of a run that was killed. Empty if they may not be listed.
        """
        uploads: dict[str, list[str]] = {}
        if hasattr(self._system, "list_multipart_uploads"):
            bucket, begin = self._root.partition("/")[0], self._path("") + "/"
            with contextlib.suppress(OSError):
                for upload in self._system.list_multipart_uploads(bucket):
                    path = f"{bucket}/{upload['Key']}"
                    if path.startswith(begin):
                        uploads.setdefault(path.removeprefix(begin), []).append(upload["UploadId"])
        return uploads

    def abort_upload(self, name: str, upload: str) -> None:
        """Remove the parts of an upload that was not finished, if that is allowed."""
        bucket, _, key = self._path(name).partition("/")
        with contextlib.suppress(OSError):
            self._system.abort_mpu(bucket, key, upload)

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

    def _cannot_write(self, name: str = "") -> str:
        return f"cannot write {quote_uri(join(self.uri, name))}"

    def _write_errors(self, name: str) -> contextlib.AbstractContextManager[None]:
        advice = "check the address and the rights to write there"
        return storage_errors(OutputError, self._cannot_write(name), self.uri, advice)


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
        reason = hide_credentials(short_reason(error))
        raise MissingExtraError(f"{quote_uri(uri)} needs a library that is not installed ({reason})") from None
    except ValueError as error:
        reason = hide_credentials(short_reason(error))
        expected = "expected a path or an address such as s3://bucket/folder"
        raise InputError(f"{expected}, got {quote_uri(uri)} ({reason})") from None
    return system, str(path)
