"""Work of a thread that another thread may end: encoding a large picture takes seconds, and nobody waits for it."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["GivenUpError", "Turn"]

Value = TypeVar("Value")

# Seconds after which an exception that was sent must have been swallowed by somebody.
_PATIENCE = 2.0


class GivenUpError(BaseException):
    """The work was ended. No ``Exception``: whoever does the work is not to take it for one of its own."""


class Turn:
    """One piece of work; to be done once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._given_up = False

    def do(self, work: Callable[[], Value]) -> Value:
        """Do it, in this thread, and return what it gives.

        Raises:
            GivenUpError: before, while or just after it was done; what it left behind is the caller's to remove. Once
                this returns the thread meets no such exception any more.
        """
        with self._lock:
            if self._given_up:
                raise GivenUpError
            self._thread = threading.get_ident()
        try:
            value = work()
        except GivenUpError:
            raise
        except BaseException:
            self._end()
            raise
        self._end()
        return value

    def _end(self) -> None:
        with self._lock:
            self._thread = None
        if self._given_up:
            until = time.monotonic() + _PATIENCE
            while time.monotonic() < until:  # it has been sent, and comes between two steps
                time.sleep(0.001)
            raise GivenUpError

    def give_up(self) -> None:
        """End it, from another thread: at its next step, which within one call of a library may take a while."""
        with self._lock:
            already, self._given_up = self._given_up, True
            if self._thread is not None and not already:
                exception = ctypes.py_object(GivenUpError)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), exception)
