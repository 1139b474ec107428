"""Choose text templates by the entropy of their predictions on unlabelled images.

Source: ``docs/method.md``, section 1, "Choice of templates".
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cliper.errors import InputError
from cliper.prompts import Classes, ClassPrompt, load_templates

if TYPE_CHECKING:
    from cliper.encoders.base import ImageFeatures
    from cliper.segmenter import Segmenter

__all__ = ["choose_templates"]

_LOG = logging.getLogger("cliper.template_selection")


def choose_templates(
    segmenter: Segmenter, images: Iterable[ImageFeatures], classes: Sequence[ClassPrompt], background: Classes | None
) -> tuple[str, ...]:
    """The templates of the settings that predict with an entropy not above the mean of all templates.

    Each template alone gives a softmax over the texts at each patch of the selected layer, of the whole image without
    windows. The background names are the same for all templates.

    Args:
        segmenter: its settings have the templates.
        images: features of at least one image, from the segmenter's encoder.
        classes: C classes.
        background: as for :meth:`.Segmenter.__call__`.

    Returns:
        At least one template, in the order of the settings.

    Raises:
        InputError: no images.
        ClassListError: as :meth:`.Segmenter.__call__`.
    """
    import torch

    from cliper.ops.class_maps import class_probabilities
    from cliper.ops.entropy import has_low_entropy, prediction_entropy

    settings, templates = segmenter.settings, load_templates(segmenter.settings.templates)
    names = segmenter.text_classifier(classes, background).background
    single = [segmenter.with_settings(settings.replace(templates=(template,))) for template in templates]
    classifiers = [one.text_classifier(classes, names) for one in single]
    layer = settings.select_layer if settings.fuse_features else 0
    entropies = []
    for features in images:
        patches = features.embeddings[layer].float()
        by_template = [
            class_probabilities(patches, rows, settings.logit_scale, len(rows), groups)
            for rows, groups, _ in classifiers
        ]
        entropies.append(torch.stack([prediction_entropy(one) for one in by_template]))
    if not entropies:
        raise InputError("expected at least one image to choose templates on, got none")
    mean = torch.stack(entropies).mean(0)
    for entropy, template in sorted(zip(mean.tolist(), templates, strict=True)):
        _LOG.info("entropy %.4f: %s", entropy, template)
    return tuple(template for template, kept in zip(templates, has_low_entropy(mean).tolist(), strict=True) if kept)
