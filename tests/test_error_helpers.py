"""The helpers of cliper.errors that make messages of one line."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest

from cliper.errors import ImageError, InputError, OutputError, quote_path, reraise, short_reason


def test_quoted_path_is_one_line_of_bounded_length() -> None:
    assert quote_path(Path("a") / "b.png") == "'a/b.png'"
    assert quote_path("a\nb\udcff").isprintable()
    assert len(quote_path("x" * 10_000)) <= 301


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a"), "No space left on device"),
        (ValueError("two\n  lines"), "two lines"),
        (ValueError(), "ValueError"),
        (OSError("no number"), "no number"),
        (ValueError("x" * 1000), "x" * 200),
    ],
)
def test_short_reason(error: Exception, reason: str) -> None:
    assert short_reason(error) == reason


def test_short_reason_hides_pytorchs_advice_to_load_without_protection() -> None:
    advice = pickle.UnpicklingError("re-run with `weights_only=False`")
    error = ValueError("cannot load")
    error.__cause__ = advice
    for item in (advice, error):
        assert "weights_only" not in short_reason(item)
        assert short_reason(item).endswith("get the weights as safetensors")


def test_reraise_replaces_the_named_exceptions_only() -> None:
    with (
        pytest.raises(OutputError, match=r"^cannot write: KeyError; try again$"),
        reraise((ValueError, KeyError), OutputError, "cannot write", "try again"),
    ):
        raise KeyError
    with pytest.raises(InputError, match=r"^cannot read: x$"), reraise(ValueError, InputError, "cannot read"):
        raise ValueError("x")
    with pytest.raises(TypeError), reraise(ValueError, InputError, "cannot read"):
        raise TypeError


def test_reraise_passes_errors_of_the_package_unchanged() -> None:
    original = ImageError("damaged")
    with pytest.raises(ImageError) as caught, reraise(ValueError, InputError, "cannot read"):
        raise original
    assert caught.value is original
