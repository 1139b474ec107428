"""Files of settings: YAML or JSON, with the settings by name, and perhaps classes and background names."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cliper.errors import SettingsError, reraise

__all__ = ["MAX_SETTINGS_BYTES", "SettingsFile", "read_settings_file"]

MAX_SETTINGS_BYTES = 100_000  # of a settings file


@dataclass(frozen=True)
class SettingsFile:
    """Content of a settings file.

    Args:
        settings: values by name, not checked.
        classes: entries of ``classes``, in the syntax of a class file; None if the file has none.
        background: entries of ``background``, likewise; ``"auto"`` and ``"none"`` are lists of that word.
    """

    settings: dict[str, Any]
    classes: tuple[str, ...] | None = None
    background: tuple[str, ...] | None = None


def read_settings_file(path: Path) -> SettingsFile:
    """Read a settings file.

    ``classes`` and ``background`` are a text (``dog; cat``) or a list, whose entries are a name, ``name: word, word``
    or ``name: [word, word]``.

    Raises:
        SettingsError: a file that is too large, cannot be parsed, has a key twice, or holds no mapping; ``classes`` or
            ``background`` of another form.
    """
    causes = (OSError, ValueError, RecursionError, yaml.YAMLError)
    with reraise(causes, SettingsError, f"{path}: expected settings as YAML or JSON, could not read them"):
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            raise OSError(f"it has more than {MAX_SETTINGS_BYTES:,} bytes")
        content = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":  # PyYAML does not accept tabs, which JSON may be indented with
            data = json.loads(content, object_pairs_hook=_unique_pairs)
        else:
            data = yaml.load(content, _Loader)
    if not isinstance(data, dict):
        raise SettingsError(f"{path}: expected 'name: value' lines, got {type(data).__name__}")
    settings = {str(name): value for name, value in data.items()}
    words = {name: _entries(path, name, settings.pop(name)) for name in ("classes", "background") if name in settings}
    return SettingsFile(settings, **words)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, and reads ``1e-4`` as a number.

    PyYAML takes the last value of a key, and reads ``1e-4`` as a text, because YAML 1.1 requires ``1.0e-4``.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[tuple[str, str], yaml.ScalarNode] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                other = first.setdefault((key.tag, key.value), key)
                if other is not key:
                    lines = f"{other.start_mark.line + 1} and {key.start_mark.line + 1}"
                    raise ValueError(f"{key.value!r} is given twice, in lines {lines}; keep one of them")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is given twice; keep one of them")
        found[name] = value
    return found


def _entries(path: Path, name: str, value: Any) -> tuple[str, ...]:
    return tuple(_entry(path, name, one) for one in (value if isinstance(value, list) else [value]))


def _entry(path: Path, name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and len(value) == 1:  # YAML reads "person: man, woman" in a list as a mapping
        [(title, words)] = value.items()
        parts = words if isinstance(words, list) else [words]
        if isinstance(title, str) and all(isinstance(part, str) for part in parts):
            return f"{title}: {', '.join(parts)}"
    raise SettingsError(
        f"{path}: {name}: expected names such as 'dog' or 'person: man, woman', got {value!r}; quote it"
    )
