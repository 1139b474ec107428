"""Images after the networks with their ground truth, small enough to hold many of them in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cliper.datasets import Sample
from cliper.decode_pool import DecodePool
from cliper.errors import InputError
from cliper.evaluation.task import EvaluationTask, SampleItem

if TYPE_CHECKING:
    import numpy.typing as npt

    from cliper.encoded_image import EncodedImage
    from cliper.segmenter import Segmenter

__all__ = ["LabelledImage", "load_labelled", "reduce_image"]

MAX_PIXELS = 128 * 128


class LabelledImage(NamedTuple):
    """An image after the networks, and its ground truth.

    Args:
        encoded: from :meth:`.Segmenter.encode_image`.
        truth: [H, W] integers: 0 background, ``i + 1`` class i, and ignored values.
    """

    encoded: EncodedImage
    truth: npt.NDArray[Any]


def load_labelled(
    task: EvaluationTask,
    segmenter: Segmenter,
    samples: Sequence[Sample],
    notify: Callable[[str], None] = lambda step: None,
) -> list[LabelledImage]:
    """Read images and masks, and run the networks once on each.

    Args:
        task: reads the samples.
        segmenter: the networks.
        samples: of the task.
        notify: is called with a line before each image.

    Returns:
        The images, reduced by :func:`reduce_image`; the features are those of the whole images.

    Raises:
        ImageError: an image or mask that cannot be used.
        InputError: a class that is in no mask.
        ResourceError: memory ran out.
    """
    import numpy as np

    images, found = [], set()
    with DecodePool(1, handler=task.decoder) as decoder:
        for number, sample in enumerate(samples, start=1):
            notify(f"image {number} of {len(samples)}")
            _, (image, truth, pixels) = task.read({"": segmenter}, SampleItem(number, sample.name, sample), decoder)
            [encoded] = segmenter.encode_images([image], list(pixels.values()))
            images.append(reduce_image(LabelledImage(encoded, truth)))
            found.update(np.unique(truth).tolist())
    missing = [name for label, name in enumerate(task.benchmark.class_names, start=1) if label not in found]
    if missing:
        raise InputError(
            f"expected each class in at least one mask, got none with {', '.join(missing)}; leave the class out, or "
            "label an image of it"
        )
    return images


def reduce_image(image: LabelledImage) -> LabelledImage:
    """The same with at most :data:`MAX_PIXELS` pixels, evenly spread, at which labels are then compared."""
    import numpy as np

    height, width = image.truth.shape
    scale = min(1.0, (MAX_PIXELS / (height * width)) ** 0.5)
    rows, columns = (
        ((np.arange(count := max(1, int(side * scale))) + 0.5) * side / count).astype(int) for side in (height, width)
    )
    small = image.encoded.image.resize((len(columns), len(rows)))
    return LabelledImage(dataclasses.replace(image.encoded, image=small), image.truth[np.ix_(rows, columns)])
