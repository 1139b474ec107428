"""Pictures and labels, read ahead of the model by threads, handed out in groups of one size."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from cliper.datasets import Benchmark, Sample
from cliper.errors import ImageError, ResourceError
from cliper.grouping import groups_of_one_size

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

__all__ = ["Loaded", "load_ahead"]


@dataclass(frozen=True)
class Loaded:
    """A sample that was read, or why it could not be.

    Args:
        sample: which.
        whole: the image that the sample is of, RGB, or None.
        picture: what is labelled: the whole, or the sample's column of it; or None.
        labels: of ``picture``, [H, W] integers, or None.
        error: None, or the one line that says what is wrong.
    """

    sample: Sample
    whole: Image.Image | None = None
    picture: Image.Image | None = None
    labels: npt.NDArray[Any] | None = None
    error: str | None = None


def load_ahead(
    benchmark: Benchmark, samples: Sequence[Sample], *, batch: int = 1, threads: int = 2
) -> Iterator[list[Loaded]]:
    """Read samples while the caller works on earlier ones.

    A few batches are in memory at any time, however many samples there are. What could not be read comes alone.

    Args:
        benchmark: it knows how to read them.
        samples: in the order in which they are read.
        batch: how many of one size make a group; fewer come where no more of that size are near.
        threads: decoders; Pillow decodes outside of Python's lock.

    Yields:
        Groups of pictures of one size. With ``batch=1`` the order is that of ``samples``.
    """

    def read(sample: Sample) -> Loaded:
        try:
            whole, labels = benchmark.read_whole(sample)
            return Loaded(sample, whole, *sample.crop(whole, labels))
        except (ImageError, ResourceError) as error:
            return Loaded(sample, error=" ".join(str(error).split()))

    ahead = threads + 2 * batch
    todo = iter(samples)
    pending: deque[Future[Loaded]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="cliper-read")

    def in_order() -> Iterator[Loaded]:
        pending.extend(pool.submit(read, sample) for sample in islice(todo, ahead))
        while pending:
            item = pending.popleft().result()
            pending.extend(pool.submit(read, sample) for sample in islice(todo, 1))
            yield item

    try:
        yield from groups_of_one_size(in_order(), batch, lambda one: one.picture and one.picture.size)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
