"""Segment the frames of a video so that labels do not flicker."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from cliper.batch.task import SegmentTask

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from cliper.result import Segmentation
    from cliper.runner.items import ImageItem
    from cliper.runner.manifest import Record
    from cliper.runner.storage import Storage
    from cliper.segmenter import Segmenter

__all__ = ["SmoothVideoTask", "VideoState", "smooth_frame"]

_GUIDE_CELLS = 4  # sides of the reduced frames, as multiples of the class maps'


class VideoState(NamedTuple):
    """The running means after a frame: for class maps before and after refinement each mean, count and frame."""

    size: tuple[int, int]
    means: tuple[tuple[Tensor, Tensor, Tensor], ...]


def smooth_frame(
    state: VideoState | None, image: Image.Image, maps: Sequence[Tensor], frames: int
) -> tuple[VideoState, list[Tensor]]:
    """Average the class maps of a frame with those of the frames before, where the image did not change.

    Args:
        state: after the frame before; None at the start of a video.
        image: the frame; one of another size starts anew.
        maps: [C, h, w] tensors, of the same sizes in each frame.
        frames: length of the average, as ``max_count`` of :func:`cliper.ops.temporal_mean`.

    Returns:
        The state after this frame, and the smoothed maps.
    """
    import torch
    from PIL import Image as Images

    from cliper.images import to_tensor
    from cliper.ops import temporal_mean, unchanged_weights

    means = []
    for index, one in enumerate(maps):
        height, width = (min(_GUIDE_CELLS * a, b) for a, b in zip(one.shape[1:], image.size[::-1], strict=True))
        guide = to_tensor(image.resize((width, height), Images.Resampling.BILINEAR))
        mean, count = one.float(), torch.ones(one.shape[1:], device=one.device)
        if state is not None and state.size == image.size and state.means[index][0].shape == one.shape:
            before, count, old_guide = state.means[index]
            weights = unchanged_weights(old_guide, guide, (one.shape[1], one.shape[2])).to(one.device)
            mean, count = temporal_mean(one, before, count, weights, frames)
        means.append((mean, count, guide))
    return VideoState(image.size, tuple(means)), [mean for mean, _, _ in means]


@dataclass(frozen=True)
class SmoothVideoTask(SegmentTask):
    """Segments the frames of a video, with class maps averaged over ``frames`` frames where the image did not change.

    It needs frames in their order: an engine of one process with one reading thread.
    """

    frames: int = 8
    _states: list[VideoState] = field(default_factory=list, init=False, compare=False)  # after the last frame

    def config(self) -> dict[str, Any]:
        """As :meth:`.SegmentTask.config`."""
        return {**super().config(), "smooth": self.frames}

    @contextlib.contextmanager
    def load(self, device: str | None = None) -> Iterator[Segmenter]:
        """As :meth:`.SegmentTask.load`; the next frame starts a video."""
        self._states.clear()
        with super().load(device) as segmenter:
            yield segmenter

    def limits(self, model: Segmenter) -> tuple[int, int]:
        """One frame and one thread: groups are of one size, so larger ones would change the order of frames."""
        return 1, 1

    def process(self, model: Segmenter, images: Sequence[Any]) -> list[Callable[[], Segmentation]]:
        """Class maps of one frame, smoothed; labels are assigned by :meth:`record`."""
        state = self._states[-1] if self._states else None
        (one,) = model.encode_images(*zip(*images, strict=True))
        maps = model.predict_maps(one, self.classes, self.background)
        unrefined = maps[0] is maps[1]  # without a refiner
        state, smooth = smooth_frame(state, one.image, maps[unrefined:], self.frames)
        self._states[:] = [state]
        return [functools.partial(model.assign_labels, one.image, self.classes, smooth[0], smooth[-1])]

    def is_current(self, item: ImageItem, record: Record, storage: Storage) -> bool:
        """False: a frame depends on those before, so a run that is resumed starts at the first frame."""
        return False
