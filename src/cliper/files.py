"""Files that are written whole or not at all, and JSON."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cliper.errors import OutputError, quote_path, reraise, short_reason

__all__ = ["atomic_write", "dumps", "json_list", "to_utf8", "write_json", "write_text"]

_REASONS = {
    errno.ENOSPC: "the disk is full; free space or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free space or write elsewhere",
    errno.EACCES: "no permission to write there; choose another folder",
    errno.EPERM: "no permission to write there; choose another folder",
    errno.EROFS: "that disk is read-only; choose another folder",
    errno.ENAMETOOLONG: "the name is too long; shorten it",
    errno.EISDIR: "that is a folder; add a file name",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
    errno.EEXIST: "a part of the path is a file, not a folder; choose another folder",
    errno.ELOOP: "its symbolic links lead in a circle; choose another name",
}


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write a file atomically: the block writes to a temporary path, which replaces ``path`` when the block succeeds.

    The temporary file is empty, lies in the same folder and has the same suffix. If the block raises anything, it is
    removed together with the folders that were made for it, and an existing file stays as it was. Symbolic links are
    followed. Only write inside the block: every ``OSError`` of it is reported as a failed write.

    Args:
        path: the file to write; missing folders are made.

    Yields:
        The path to write to.

    Raises:
        OutputError: the file cannot be written: no permission, a full disk, a folder of that name, ...

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(Path(folder) / "new" / "a.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     (Path(folder) / "new" / "a.txt").read_text()
        'whole'
    """
    new_folders: list[Path] = []
    temporary: Path | None = None
    try:
        target = _resolve(path)
        new_folders = [folder for folder in target.parents if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not mkstemp, whose files only their owner can read: this one follows the umask.
        temporary = target.parent / f".{secrets.token_hex(8)}{target.suffix}"
        temporary.open("xb").close()
        yield temporary
        with temporary.open("r+b") as stream:
            os.fsync(stream.fileno())  # some file systems report a full disk only here
        temporary.replace(target)
    except BaseException as error:  # KeyboardInterrupt too
        with contextlib.suppress(OSError):
            if temporary is not None:
                temporary.unlink(missing_ok=True)
        for folder in new_folders:  # deepest first; one that is not empty stays
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            reason = _REASONS.get(error.errno or 0) or short_reason(error)
            raise OutputError(f"cannot write {quote_path(path)}: {reason}") from error
        raise


def dumps(value: Any) -> str:
    """JSON on one line, in ASCII: text that is not valid Unicode, such as some file names, is escaped.

    Example:
        >>> dumps({"name": "Bär"})
        '{"name":"B\\\\u00e4r"}'
    """
    return json.dumps(value, separators=(",", ":"))


def json_list(items: Iterable[Any]) -> Iterator[str]:
    """The text of a JSON list piece by piece, one item per line; only one item is in memory at a time.

    Example:
        >>> "".join(json_list([1, {"a": 2}]))
        '[\\n1,\\n{"a":2}\\n]'
    """
    yield "["
    for number, item in enumerate(items):
        yield (",\n" if number else "\n") + dumps(item)
    yield "\n]"


def to_utf8(text: str) -> str:
    """The text with question marks for what UTF-8 cannot encode: bytes of file names that are not valid text.

    Example:
        >>> to_utf8("a\\udcff.png")
        'a?.png'
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def write_text(path: str | Path, text: str | Iterable[str]) -> None:
    r"""Write UTF-8 with line ends ``\n`` on every system.

    Args:
        path: the file to write.
        text: the text, or its pieces in order.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines([text] if isinstance(text, str) else text)


def write_json(path: str | Path, value: Any) -> None:
    """Write one JSON value and a line end.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(path, dumps(value) + "\n")


def _resolve(path: str | Path) -> Path:
    """The file that a path means, with symbolic links followed.

    Raises:
        OSError: it is a folder, or its name is too long.
        OutputError: its name has a null character, or it is a device or a pipe.
    """
    with reraise(ValueError, OutputError, f"cannot write {quote_path(path)}", "choose another name"):
        target = Path(os.path.realpath(path))
    if not str(path) or target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        target.lstat()
        if not target.is_file():
            raise OutputError(f"cannot write {quote_path(path)}: that is a device or a pipe; choose another name")
    return target
