"""What the shell completes after an option: names of models, refiners, presets, formats and benchmarks, and paths.

Completion runs the program at each press of the tab key, so nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import click
from click.shell_completion import CompletionItem

from cliper.settings import presets

__all__ = [
    "complete",
    "complete_benchmarks",
    "complete_checkpoints",
    "complete_formats",
    "complete_models",
    "complete_path",
    "complete_presets",
    "complete_refiners",
    "complete_targets",
    "complete_vaes",
]

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete(names: Sequence[str] | Callable[[], Iterable[str]], *, paths: str | None = None) -> Complete:
    """A function for the ``shell_complete`` of click's parameters.

    Args:
        names: to complete, in any case; or a function that gives them.
        paths: ``"file"`` or ``"dir"`` if the value may also be a path, which the shell itself completes.
    """

    def items(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin with what was typed, in any case."""
        known = names() if callable(names) else names
        found = [CompletionItem(name) for name in known if name.lower().startswith(incomplete.lower())]
        return found if paths is None else [CompletionItem(incomplete, type=paths), *found]

    return items


def _aliases(*kinds: str) -> list[str]:
    from cliper.checkpoints.registry import entries

    return [entry.alias for kind in kinds for entry in entries(kind)]


def _formats() -> Iterable[str]:
    from cliper.formats import format_names

    return format_names()


def _benchmarks() -> Iterable[str]:
    from cliper.datasets import benchmark_names

    return benchmark_names()


complete_path = complete((), paths="file")
complete_models = complete(lambda: _aliases("clip"), paths="file")
complete_refiners = complete(lambda: ["none", "self", *_aliases("diffusion", "dino")], paths="dir")
complete_vaes = complete(lambda: ["full", *_aliases("vae")], paths="dir")
complete_checkpoints = complete(lambda: _aliases("clip", "diffusion", "dino", "vae"), paths="dir")
complete_presets = complete(presets, paths="file")
complete_formats = complete(_formats)
complete_benchmarks = complete(_benchmarks)
complete_targets = complete(lambda: [*presets(), *_benchmarks()])
