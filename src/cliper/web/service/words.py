"""Reading a request's words, a few at a time: a long list is given up when nobody waits for it any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cliper.prompts import ClassPrompt, load_templates

if TYPE_CHECKING:
    from cliper.cache import LRUTextCache
    from cliper.web.service.wish import Wish

__all__ = ["read_words"]

_TEXTS = 128  # a few seconds of a text tower as large as ViT-L/14's on two cores of a CPU


def read_words(wish: Wish, texts: LRUTextCache, wanted: Callable[[], bool]) -> None:
    """Encode what is not known of a long list; what was encoded stays known, also if the rest is given up.

    Of a short one nothing is done: the segmenter will read it.

    Args:
        wish: whose segmenter keeps embeddings in ``texts``.
        texts: those that are known.
        wanted: asked before each few; once it says no, nothing more is encoded.

    Raises:
        ClassListError: a text longer than the tower can read.
        ResourceError: memory ran out.
    """
    prompts = list(dict.fromkeys(prompt for item in (*wish.classes, *wish.background) for prompt in item.prompts))
    forms = load_templates(wish.segmenter.settings.templates)
    few = max(1, _TEXTS // len(forms))
    prompts = texts.missing(wish.segmenter.encoder.text_fingerprint(), forms, prompts)
    if len(prompts) <= few:
        return
    for first in range(0, len(prompts), few):
        if not wanted():
            return
        some = enumerate(prompts[first : first + few])
        wish.segmenter.encode_text([ClassPrompt(f"text {number}", (prompt,)) for number, prompt in some])
