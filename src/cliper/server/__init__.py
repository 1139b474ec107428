"""HTTP server of ``cliper serve`` and ``cliper demo``: the API, and a static page on it (``docs/server.md``)."""

__all__: list[str] = []
