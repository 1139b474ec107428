"""What a run does with each image; :mod:`cliper.batch` and :mod:`cliper.evaluation` are the tasks."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

from cliper.decode_pool import DecodePool
from cliper.runner.manifest import Record
from cliper.runner.storage import Storage

__all__ = ["Task"]


class Task(Protocol):
    """What a run does with each image. Plain values, so that it can be sent to other processes and machines.

    An engine calls :meth:`load` once in each worker, and :meth:`read`, :meth:`process` and :meth:`record` in threads.
    An ``ImageError`` or ``ResourceError`` of these methods fails the image, or the group of images, which is then
    processed one by one; any other exception ends the run.
    """

    name: ClassVar[str]
    decoder: ClassVar[str] = "cliper.decode_pool:_image_decoder"  # handler of the decoding processes

    def load(self, device: str | None = None) -> AbstractContextManager[Any]:
        """The model, for the other methods, on a device in place of the task's own. Raises CliperError."""

    def limits(self, model: Any) -> tuple[int, int]:
        """How many images of one size :meth:`process` is given at most, and how many threads may call it at once."""

    def read(self, model: Any, item: Any, decoder: DecodePool) -> tuple[Hashable, Any]:
        """Read an image: its size, and what :meth:`process` is given. Images of one size are processed together."""

    def process(self, model: Any, images: Sequence[Any]) -> list[Any]:
        """Run the networks on images of one size; what :meth:`record` is given for each."""

    def record(self, item: Any, result: Any, storage: Storage) -> Record:
        """Do the rest, such as writing files, without the networks.

        Raises:
            CliperError: it cannot be done. If no other image can be written either (:meth:`Storage.is_fatal`), the run
                ends; else this image fails.
        """

    def is_current(self, item: Any, record: Record, storage: Storage) -> bool:
        """Whether an image that an earlier run has done need not be done again."""

    def outputs(self, name: str) -> list[str]:
        """Names of the files of the image of that name; of two images with the same files, the second fails."""
        return []

    def check_name(self, name: str) -> str | None:
        """Why an image of that name cannot be processed, or None."""
        return None
