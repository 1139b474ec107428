"""From class and background names to the texts that patches are compared with.

Source: ``docs/method.md``, section 1, "Text" and "Synonyms".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cliper.prompts import Classes, ClassPrompt, encode_background, encode_classes

if TYPE_CHECKING:
    from torch import Tensor

    from cliper.cache import TextEmbeddingCache
    from cliper.encoders.base import Encoder
    from cliper.settings import Settings

__all__ = ["TEXT_SETTINGS", "TextClassifier", "make_text_classifier"]

TEXT_SETTINGS = ("templates", "merge_synonyms", "background_similarity", "background_count")
"""The settings that a text classifier depends on."""


class TextClassifier(NamedTuple):
    """The texts of one call, in rows.

    Args:
        rows: [R, D] float32 of length 1: classes, background names, and the mean of the classes.
        groups: [R] int64, the text of each row, from :func:`.expand_synonyms`; None if each row is a text.
        background: the background names; those of ``"auto"`` are chosen for the classes.
    """

    rows: Tensor
    groups: Tensor | None
    background: tuple[ClassPrompt, ...]


def make_text_classifier(
    encoder: Encoder,
    classes: Sequence[ClassPrompt],
    foreground: Tensor,
    background: Classes | None,
    settings: Settings,
    cache: TextEmbeddingCache | None = None,
) -> TextClassifier:
    """The text classifier of classes and background names.

    The mean of the classes is a text too, unless there is one class, which it would equal. It is the mean of the
    classes' embeddings, whatever ``merge_synonyms`` says.

    Args:
        encoder: the text tower.
        classes: C classes.
        foreground: [C, D] from :func:`.encode_classes`.
        background: as for :func:`.background_classes`.
        settings: :data:`TEXT_SETTINGS`.
        cache: as for :func:`.encode_classes`.

    Raises:
        ClassListError: as for :func:`.encode_background`.
    """
    from cliper.ops.class_maps import build_text_classifier, expand_synonyms

    names, others = encode_background(encoder, background, classes, foreground, settings, cache)
    rows, groups = build_text_classifier(foreground, others, with_mean=len(classes) > 1), None
    if settings.merge_synonyms == "logsumexp":
        synonyms = {
            index: encode_classes(encoder, [ClassPrompt(p, (p,)) for p in item.prompts], settings.templates, cache)
            for index, item in enumerate([*classes, *names])
            if len(item.prompts) > 1
        }
        if synonyms:
            rows, groups = expand_synonyms(rows, synonyms)
    return TextClassifier(rows, groups, tuple(names))
