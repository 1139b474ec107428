"""Silence the log messages and progress bars of ``transformers`` while it loads a model."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

__all__ = ["silence_transformers"]

_lock = Lock()
_before: list[tuple[int, bool]] = []  # verbosity and progress bars before the first thread entered; one item a thread


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Let ``transformers`` log errors only and draw no progress bar; restore its settings afterwards.

    The settings are those of the process. Of several threads the first to enter changes them, and the last to leave
    restores them.
    """
    from transformers.utils import logging

    with _lock:
        _before.append(_before[0] if _before else (logging.get_verbosity(), logging.is_progress_bar_enabled()))
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    try:
        yield
    finally:
        with _lock:
            verbosity, bars = _before.pop()
            if not _before:
                logging.set_verbosity(verbosity)
                if bars:
                    logging.enable_progress_bar()
