"""Checks of single settings: each gives the value in its type, or raises an error that names the setting."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any

from cliper.errors import SettingsError

__all__ = [
    "check_bool",
    "check_choice",
    "check_float",
    "check_int",
    "check_model",
    "check_names",
    "check_seed",
    "check_size",
    "check_sizes",
    "check_templates",
]


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """One of a few names. Raises SettingsError."""
    if not isinstance(value, str) or value not in allowed:
        raise SettingsError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
    return value


def check_bool(name: str, value: Any) -> bool:
    """True or false. Raises SettingsError."""
    if not isinstance(value, bool):
        raise SettingsError(f"{name}: expected true or false, got {value!r}")
    return value


def check_int(name: str, value: Any, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``, but no bool. Raises SettingsError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
        raise SettingsError(f"{name}: expected a whole number from {low} to {high}, got {value!r}")
    return int(value)


def check_float(name: str, value: Any, low: float, high: float) -> float:
    """A number from ``low`` to ``high``, but no bool. Raises SettingsError."""
    plain: Any = value  # compared before the conversion, which fails for huge integers; NaN fails the comparison
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not low <= plain <= high:
        raise SettingsError(f"{name}: expected a number from {low:g} to {high:g}, got {value!r}")
    return float(value)


def check_model(name: str, value: Any) -> str:
    """A name that is not blank. Raises SettingsError."""
    if not isinstance(value, str) or not value.strip():
        raise SettingsError(f"{name}: expected the name or folder of a model, got {value!r}")
    return value


def check_names(name: str, value: Any) -> tuple[str, ...]:
    """At least one text. Raises SettingsError."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise SettingsError(f"{name}: expected a list of names, got {value!r}")
    items = tuple(value)
    if not items or not all(isinstance(item, str) and item for item in items):
        raise SettingsError(f"{name}: expected at least one name, each a text, got {value!r}")
    return items


def check_templates(name: str, value: Any, allowed: tuple[str, ...]) -> str | tuple[str, ...]:
    """The name of a built-in list, or templates with one ``{}`` each. Raises SettingsError."""
    if isinstance(value, str):
        return check_choice(name, value, allowed)
    items = check_names(name, value)
    for item in items:
        if item.count("{}") != 1 or item.count("{") != 1 or item.count("}") != 1:
            raise SettingsError(f"{name}: expected exactly one {{}} in each, got {item!r}")
    return items


def check_size(name: str, value: Any, low: int, high: int) -> int | tuple[int, int]:
    """A side, or height and width, in pixels. Raises SettingsError."""
    sides = (value,) if isinstance(value, int) else value
    if not isinstance(sides, tuple | list) or not 1 <= len(sides) <= 2:
        raise SettingsError(f"{name}: expected a side or [height, width] in pixels, got {value!r}")
    for side in sides:
        check_int(name, side, low, high)
    return value if isinstance(value, int) else (int(sides[0]), int(sides[-1]))


def check_sizes(name: str, value: Any, low: int, high: int) -> tuple[int, ...]:
    """A list of whole numbers from ``low`` to ``high``, perhaps empty. Raises SettingsError."""
    if not isinstance(value, tuple | list):
        raise SettingsError(f"{name}: expected a list of sizes, got {value!r}")
    return tuple(check_int(name, size, low, high) for size in value)


def check_seed(seed: object) -> int:
    """Check a seed for ``torch.Generator``.

    Raises:
        SettingsError: it is not a whole number from -2^63 to 2^64 - 1.
    """
    return check_int("seed", seed, -(2**63), 2**64 - 1)
