"""Which files of a folder are meant: patterns as shells have them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from cliper.errors import InputError
from cliper.scale.items import is_picture_name

__all__ = ["matcher"]

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]]+\]|.", re.DOTALL)


def matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """A test of names, relative and with ``/``.

    Args:
        patterns: one without ``/`` is about a file's last part, in any folder; one with ``/`` about the whole name.
            ``*`` and ``?`` stay within a folder, ``**`` goes through folders. Upper and lower case differ. Without
            any pattern, names that end as a picture's do match.

    Raises:
        InputError: a pattern that is empty or no pattern.

    Example:
        >>> is_meant = matcher(["*.jpg", "2024/**/*.png"])
        >>> [name for name in ("a/b.jpg", "2024/x.png", "2024/a/b/x.png", "2023/x.png") if is_meant(name)]
        ['a/b.jpg', '2024/x.png', '2024/a/b/x.png']
    """
    if not patterns:
        return is_picture_name
    whole = [_compiled(pattern) for pattern in patterns if "/" in pattern]
    last = [_compiled(pattern) for pattern in patterns if "/" not in pattern]

    def is_meant(name: str) -> bool:
        file = name.rpartition("/")[2]
        return any(one.fullmatch(name) for one in whole) or any(one.fullmatch(file) for one in last)

    return is_meant


def _compiled(pattern: str) -> re.Pattern[str]:
    if not pattern.strip("/"):
        raise InputError(f"--glob: expected a pattern such as '*.jpg', got {pattern!r}")
    parts = (_translated(token) for token in _TOKEN.findall(pattern.strip("/")))
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error as error:
        raise InputError(f"--glob: expected a pattern such as '*.jpg', got {pattern!r} ({error})") from None


def _translated(token: str) -> str:
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if token in known:
        return known[token]
    if len(token) > 1:
        body = token[1:-1].replace("\\", "\\\\")
        return f"[^{body[1:]}]" if body.startswith("!") else f"[{body}]"
    return re.escape(token)
