"""Patterns of file names, as in a shell."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from cliper.errors import InputError, reraise
from cliper.runner.items import is_image_name

__all__ = ["compile_patterns"]


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
    full = [_compile(pattern) for pattern in patterns if "/" in pattern]
    last = [_compile(pattern) for pattern in patterns if "/" not in pattern]

    def matches(name: str) -> bool:
        file = name.rpartition("/")[2]
        return any(one.fullmatch(name) for one in full) or any(one.fullmatch(file) for one in last)

    return matches


def _compile(pattern: str) -> re.Pattern[str]:
    from fsspec.utils import glob_translate

    message = f"--glob: expected a pattern such as '*.jpg', got {pattern!r}"
    if not pattern.strip("/"):
        raise InputError(message)
    with reraise((re.error, ValueError), InputError, message):
        return re.compile(glob_translate(pattern.strip("/")))
