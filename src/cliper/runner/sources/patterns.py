"""Patterns of file names, as in a shell."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from cliper.errors import InputError
from cliper.runner.items import is_image_name

__all__ = ["compile_patterns"]

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]]+\]|.", re.DOTALL)


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
    if not pattern.strip("/"):
        raise InputError(f"--glob: expected a pattern such as '*.jpg', got {pattern!r}")
    parts = (_translate(token) for token in _TOKEN.findall(pattern.strip("/")))
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error as error:
        raise InputError(f"--glob: expected a pattern such as '*.jpg', got {pattern!r} ({error})") from None


def _translate(token: str) -> str:
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if token in known:
        return known[token]
    if len(token) > 1:
        body = token[1:-1].replace("\\", "\\\\")
        return f"[^{body[1:]}]" if body.startswith("!") else f"[{body}]"
    return re.escape(token)
