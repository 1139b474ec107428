"""Loading models without the libraries' own log lines and bars on the user's terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

__all__ = ["quiet_transformers"]


_lock = Lock()
_inside: list[tuple[int, bool]] = []  # one entry for each thread that is inside; the first is what was there before


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within it ``transformers`` logs errors only and draws no progress bar; afterwards all is as before.

    What it sets is the whole process's: of several threads the first to come in sets it, the last to leave restores.
    """
    from transformers.utils import logging

    with _lock:
        before = _inside[0] if _inside else (logging.get_verbosity(), logging.is_progress_bar_enabled())
        _inside.append(before)
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    try:
        yield
    finally:
        with _lock:
            verbosity, bars = _inside.pop()
            if not _inside:
                logging.set_verbosity(verbosity)
                if bars:
                    logging.enable_progress_bar()
