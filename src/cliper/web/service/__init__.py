"""The HTTP service of ``cliper serve``; ``docs/service.md`` describes it."""

__all__: list[str] = []
