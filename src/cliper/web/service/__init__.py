"""The HTTP service of ``cliper serve``; ``docs/service.md`` describes it."""
