"""``cliper serve`` whose model waits while a file is there, and that writes its metrics to a file at the end.

A program of its own, for tests: python held_server.py HELD COUNTS serve --port 0 ...
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from cliper.cli.main import run
from cliper.segmenter import Segmenter
from cliper.server.admission import Service


def main(held: Path, counts: Path, arguments: list[str]) -> int:
    segment, leave = Segmenter.__call__, Service.__exit__

    def wait_and_segment(self: Segmenter, *given: Any) -> Any:
        while held.exists():
            time.sleep(0.01)
        return segment(self, *given)

    def leave_and_tell(self: Service, *error: Any) -> None:
        leave(self, *error)
        counts.write_bytes(self.metrics.text())

    Segmenter.__call__ = wait_and_segment  # type: ignore[method-assign]
    Service.__exit__ = leave_and_tell  # type: ignore[method-assign]
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
