"""``silence_transformers``: what it changes, and restoring it."""

from __future__ import annotations

import threading

from transformers.utils import logging

from cliper.hf_logging import silence_transformers


def state() -> tuple[int, bool]:
    return logging.get_verbosity(), logging.is_progress_bar_enabled()


def test_settings_are_restored_when_the_last_thread_leaves() -> None:
    before = state()
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with silence_transformers():
            entered.set()
            leave.wait(timeout=60)

    thread = threading.Thread(target=other)
    with silence_transformers():
        assert state() == (logging.ERROR, False)
        thread.start()
        assert entered.wait(timeout=60)
    assert state() == (logging.ERROR, False)
    leave.set()
    thread.join(timeout=60)
    assert state() == before
