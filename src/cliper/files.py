"""Files that are written whole or not at all, and JSON in them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from cliper.errors import InputError, OutputError, quote_path, short_reason

__all__ = [
    "atomic_write",
    "display_name",
    "dumps",
    "read_json",
    "to_utf8",
    "write_json",
    "write_json_list",
    "write_text",
]

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
    """A temporary path to write to; it takes the place of ``path`` when the block ends well.

    The temporary file exists, is empty, lies in the same folder and has the same suffix. When the block
    raises anything, it and the folders made for it are removed, and a file that was at ``path`` before is as
    it was. A symbolic link is followed. Only write inside the block: its ``OSError`` is taken for a failed
    write.

    Args:
        path: where the file should be in the end; missing folders are made.

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
    made: list[Path] = []
    temporary: Path | None = None
    try:
        target = _target(path)
        _make_folders(target.parent, made)
        # Not mkstemp: its files are for their owner alone, these follow the umask as any new file does.
        candidate = target.parent / f".{secrets.token_hex(8)}{target.suffix}"
        os.close(os.open(candidate, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        temporary = candidate
        yield temporary
        _flush(temporary)
        temporary.replace(target)
    except BaseException as error:  # KeyboardInterrupt too must leave nothing behind
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise OutputError(f"cannot write {quote_path(path)}: {_reason(error)}") from error
        raise


def _target(path: str | Path) -> Path:
    try:
        target = Path(os.path.realpath(path))
    except ValueError:
        raise OutputError(f"cannot write {quote_path(path)}: the name holds a null character") from None
    if not str(path) or target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder")
    try:
        target.lstat()  # finds a name that is too long before the work is done
    except (FileNotFoundError, NotADirectoryError):
        return target
    if not target.is_file():
        raise OutputError(f"cannot write {quote_path(path)}: that is a device or a pipe; choose another name")
    return target


def _make_folders(folder: Path, made: list[Path]) -> None:
    """As ``mkdir(parents=True)``, noting in ``made`` what was not there before."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        if folder.parent == folder:
            break
        folder = folder.parent
    for one in reversed(missing):
        try:
            one.mkdir()
        except FileExistsError:
            if not one.is_dir():  # else another process was quicker
                raise
        else:
            made.append(one)


def _flush(path: Path) -> None:
    """Wait for the disk: some file systems say only now that they are full."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: OSError) -> str:
    known = _REASONS.get(error.errno or 0)
    return known or " ".join((error.strerror or str(error) or type(error).__name__).split())


def dumps(value: Any) -> str:
    """JSON on one line, in ASCII: whatever a file's name holds, it can be written.

    Example:
        >>> dumps({"name": "Bär"})
        '{"name":"B\\\\u00e4r"}'
    """
    return json.dumps(value, separators=(",", ":"))


def to_utf8(text: str) -> str:
    """The text as UTF-8 can hold it: bytes of a file's name that are no text become question marks.

    Example:
        >>> to_utf8("a\\udcff.png")
        'a?.png'
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def display_name(name: str) -> str:
    """A model's name without the folders of this machine; aliases and hub names stay as they are.

    Example:
        >>> [display_name(name) for name in ("ViT-B/16", "/home/me/models/mine", "./mine")]
        ['ViT-B/16', 'mine', 'mine']
    """
    path = Path(name)
    return path.resolve().name if path.is_absolute() or name.startswith((".", "~")) else name


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 with plain line ends on every system.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any) -> None:
    """Write one value.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(path, dumps(value) + "\n")


def write_json_list(stream: IO[str], items: Iterable[Any]) -> None:
    """Write a JSON list, one item a line; the items are never held together."""
    stream.write("[")
    for number, item in enumerate(items):
        stream.write(("," if number else "") + "\n" + dumps(item))
    stream.write("\n]")


def read_json(path: Path, kind: type) -> Any:
    """Read one picture's file of a run.

    Args:
        path: of the file.
        kind: what its outermost value must be, ``dict`` or ``list``.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"expected a picture's result at {quote_path(path)}, got nothing there; run the picture again"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"expected a picture's result, could not read {quote_path(path)} ({short_reason(error)}); "
            "run the picture again"
        ) from None
    if not isinstance(value, kind):
        raise InputError(f"expected a JSON {kind.__name__} in {quote_path(path)}, got another; run the picture again")
    return value
