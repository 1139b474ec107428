"""Where the images of a run come from: folders, lists, tars and videos."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from cliper.errors import InputError, reraise
from cliper.runner.items import Source, is_image_name
from cliper.runner.sources.folder import FolderSource
from cliper.runner.sources.list_file import ListSource
from cliper.runner.sources.tar import TarSource
from cliper.runner.sources.video import VideoSource
from cliper.runner.storage import Storage, normalize_uri, quote_uri, storage_errors

__all__ = ["FolderSource", "ListSource", "TarSource", "VideoSource", "compile_patterns", "find_source"]

_LISTS = (".txt", ".lst", ".list")
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".ogv", ".3gp")


def find_source(uri: str, *, glob: Sequence[str] = (), every: int | None = None, skip: str | None = None) -> Source:
    """The source at an address, by what lies there.

    Args:
        uri: a folder, a list (``.txt``), a tar or a video; path or fsspec address.
        glob: patterns of names, for folders, lists and tars; see :func:`compile_patterns`.
        every: of a video, take every n-th frame; None is 1.
        skip: a folder that is left out: the run's own results.

    Raises:
        InputError: nothing is there, or nothing that can be used; or an option that does not fit it.
        MissingExtraError: a video, and PyAV is not installed.

    Example:
        >>> find_source("no/such/folder")
        Traceback (most recent call last):
        cliper.errors.InputError: expected a folder, list, tar or video at 'no/such/folder', got nothing there; ...
    """
    matches = compile_patterns(glob)
    uri = normalize_uri(uri)
    lower, shown, storage = uri.lower(), quote_uri(uri), Storage(uri)
    is_video = lower.endswith(_VIDEOS)
    if every is not None and not is_video:
        raise InputError(f"--every: it is for videos, got {shown}; leave it out")
    expected = f"expected a folder, list, tar or video at {shown}"
    advice = "check the address, and the rights to read there"
    with storage_errors(InputError, f"{expected}, could not look there", uri, advice):
        is_folder, exists = storage.is_folder(), storage.exists()
    if is_folder:
        return FolderSource(uri, matches, skip)
    if not exists:
        raise InputError(f"{expected}, got nothing there; check the path")
    if storage.local is not None and not storage.local.is_file():
        raise InputError(f"expected a folder, list, tar or video, got a pipe or device: {shown}")
    if is_video:
        if glob:
            raise InputError("--glob: it is for folders, lists and tars, got a video; leave it out")
        return VideoSource(uri, 1 if every is None else every)
    if lower.endswith(_TARS):
        return TarSource(uri, matches)
    if lower.endswith(_LISTS):
        return ListSource(uri, matches if glob else None)
    hint = "for one image use `cliper segment`" if is_image_name(uri) else "check the path"
    raise InputError(f"expected a folder, a list ({', '.join(_LISTS)}), a tar or a video, got {shown}; {hint}")


def compile_patterns(patterns: Sequence[str]) -> Callable[[str], bool]:
    """A test of names, relative and with ``/``.

    Args:
        patterns: one without ``/`` is compared with a file's last part, in any folder; one with ``/`` with the whole
            name. ``*`` and ``?`` match no ``/``, ``**`` matches folders. Upper and lower case differ. Without any
            pattern, names with the suffix of an image format match.

    Raises:
        InputError: a pattern that is empty or invalid.

    Example:
        >>> matches = compile_patterns(["*.jpg", "2024/**/*.png"])
        >>> [name for name in ("a/b.jpg", "2024/x.png", "2024/a/b/x.png", "2023/x.png") if matches(name)]
        ['a/b.jpg', '2024/x.png', '2024/a/b/x.png']
    """
    if not patterns:
        return is_image_name
    compiled = [_compile(pattern) for pattern in patterns]
    return lambda name: any(pattern.fullmatch(name) for pattern in compiled)


def _compile(pattern: str) -> re.Pattern[str]:
    from fsspec.utils import glob_translate

    message = f"--glob: expected a pattern such as '*.jpg', got {pattern!r}"
    if not pattern.strip("/"):
        raise InputError(message)
    with reraise((re.error, ValueError), InputError, message):
        return re.compile(glob_translate(pattern.strip("/") if "/" in pattern else f"**/{pattern}"))
