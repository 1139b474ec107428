"""Where things that can be computed again are kept between runs."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """``$CLIPER_CACHE``, else ``$XDG_CACHE_HOME/cliper``, else ``~/.cache/cliper``. It need not exist."""
    own = os.environ.get("CLIPER_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "cliper"
