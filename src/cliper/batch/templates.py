"""Choose the text templates of a run on its first images."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cliper.batch.task import SegmentTask
from cliper.decode_pool import DecodePool
from cliper.errors import ImageError, ResourceError
from cliper.template_selection import choose_templates

if TYPE_CHECKING:
    from cliper.encoders.base import ImageFeatures
    from cliper.runner.items import Source
    from cliper.segmenter import Segmenter

__all__ = ["with_chosen_templates"]


def with_chosen_templates(task: SegmentTask, source: Source, count: int) -> SegmentTask:
    """The task with the templates that :func:`.choose_templates` keeps on the first images of the source.

    Args:
        task: its settings have the templates to choose from.
        source: of the run.
        count: how many images; those that cannot be used are left out.

    Raises:
        InputError: none of the images can be used.
        CliperError: as :meth:`.ModelConfig.load` and :func:`.choose_templates`.
    """
    models = task.models
    # Only the patches of the whole image are looked at.
    plain = models.settings.replace(extra_sizes=(), flip=False, window=0, class_top=0, class_min_score=0)
    segmenter = dataclasses.replace(models, refiner=None, settings=plain).load()
    templates = choose_templates(segmenter, _encode(segmenter, task, source, count), task.classes, task.background)
    return dataclasses.replace(
        task, models=dataclasses.replace(models, settings=models.settings.replace(templates=templates))
    )


def _encode(segmenter: Segmenter, task: SegmentTask, source: Source, count: int) -> Iterator[ImageFeatures]:
    with DecodePool(1) as decoder:
        for item in itertools.islice(source.items(), count):
            try:
                _, (image, pixels) = task.read(segmenter, item, decoder)
                [encoded] = segmenter.encode_images([image], [pixels])
            except (ImageError, ResourceError):  # the run reports it
                continue
            yield encoded.views[0]
