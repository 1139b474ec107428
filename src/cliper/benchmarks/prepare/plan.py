"""Which masks are to be made, and making them: what is there already stays, one that fails stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cliper.errors import ImageError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Job", "Outcome", "Plan", "carry_out", "renumber", "untracked"]

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """One mask: where it goes, and what makes its labels [H, W]. ``make`` raises ImageError where it cannot."""

    target: Path
    make: Callable[[], npt.NDArray[Any]]


@dataclass(frozen=True)
class Plan:
    """What is to be made.

    Args:
        folder: where the masks go.
        jobs: one a mask.
        split: a list of names to write, and where to.
        problems: a line for each entry of the source that no mask can be made from.
    """

    folder: Path
    jobs: Sequence[Job]
    split: tuple[Path, tuple[str, ...]] | None = None
    problems: Sequence[str] = ()


@dataclass
class Outcome:
    """How many masks were written, how many were there already, and a line for each that could not be made."""

    written: int = 0
    kept: int = 0
    failed: list[str] = field(default_factory=list)


def untracked(items: Sequence[T], what: str) -> Iterable[T]:
    """The items, with no progress shown: what the parameters called ``track`` are by default."""
    return items


def carry_out(plan: Plan, track: Callable[[Sequence[Job], str], Iterable[Job]] = untracked) -> Outcome:
    """Make what is not there yet. Interrupted and called again, it goes on where it was.

    Args:
        plan: from one of this package's functions.
        track: from the jobs and a text to the jobs, showing how far they are.

    Raises:
        OutputError: a file cannot be written; nothing more is tried then.
        ResourceError: memory ran out.
    """
    from cliper.files import atomic_write
    from cliper.formats import write_label_png

    if plan.split is not None:
        path, names = plan.split
        with atomic_write(path) as temporary:
            temporary.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    outcome = Outcome(failed=list(plan.problems))
    for job in track(plan.jobs, plan.folder.name):
        if _is_whole(job.target):
            outcome.kept += 1
            continue
        try:
            labels = job.make()
        except ImageError as error:
            outcome.failed.append(str(error))
            continue
        write_label_png(job.target, labels)
        outcome.written += 1
    return outcome


def _is_whole(path: Path) -> bool:
    """Whether a mask is there and can be decoded to its end. One that cannot is made again."""
    from cliper.formats import read_label_png

    if not path.is_file():
        return False
    try:
        read_label_png(path)
    except ImageError:
        return False
    return True


def renumber(values: npt.NDArray[Any], numbers: dict[int, int], source: Path) -> npt.NDArray[Any]:
    """Values replaced as ``numbers`` says, [H, W] uint8.

    Raises:
        ImageError: a value that is not in ``numbers``.
    """
    import numpy as np

    from cliper.decoding import shown_path

    found, places = np.unique(values, return_inverse=True)
    unknown = [int(value) for value in found if int(value) not in numbers]
    if unknown:
        raise ImageError(
            f"expected the data set's own labels ({min(numbers)} to {max(numbers)}), got {unknown[0]}: "
            f"{shown_path(source)}; is it another file?"
        )
    return np.array([numbers[int(value)] for value in found], np.uint8)[places].reshape(values.shape)
