"""Handlers of decoding processes that misbehave in every way, as a decoder would that no check foresaw."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["MISBEHAVIOURS", "decoder", "file_decoder"]

MISBEHAVIOURS = ("allocate", "abort", "crash", "exit", "hang", "kill", "lie", "spin")


def decoder() -> Any:
    """Misbehaves as the name says; ``modules`` gives the names of loaded modules; other files are decoded."""
    from cliper.decode_pool import _image_decoder

    return _misbehaving(_image_decoder())


def file_decoder() -> Any:
    """The same for the image and mask files of benchmarks."""
    from cliper.datasets.decoding import file_decoder

    return _misbehaving(file_decoder())


def _misbehaving(answer: Any) -> Any:
    def decode(request: dict[str, Any], data: bytes) -> Any:
        name = Path(request["name"]).name.partition(".")[0]
        if name == "allocate":
            blocks = []
            try:
                while True:
                    blocks.append(bytes(2**26))
            except MemoryError:
                return {"error": "out of memory"}, None
        if name in ("abort", "crash", "kill"):
            os.kill(os.getpid(), {"abort": signal.SIGABRT, "crash": signal.SIGSEGV, "kill": signal.SIGKILL}[name])
        if name == "exit":
            sys.exit(3)
        if name == "hang":
            time.sleep(1000)
        if name == "lie":
            return {"shape": [10**6, 10**6, 3]}, None
        while name == "spin":
            pass
        if name == "modules":
            return {"error": " ".join(sys.modules)}, None
        return answer(request, data)

    return decode
