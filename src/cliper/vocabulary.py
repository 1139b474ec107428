"""The words that a checkpoint was taught, and notes about words that it was not."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cliper.prompts import ClassPrompt, encode_classes, word_forms

if TYPE_CHECKING:
    from torch import Tensor

    from cliper.checkpoints import ResolvedCheckpoint
    from cliper.encoders.base import Encoder

__all__ = ["TaughtWords", "taught_words"]

# Cosine to a taught word from which a text means nearly the same, and below which it means nothing like it. Of mini:
# "horse rider" 0.93, "wooden bench" 0.78, "desk" 0.67, "Hund" 0.50.
_SAME, _UNRELATED = 0.85, 0.52
_MAX_NOTES = 5
_MAX_PROMPTS = 16  # of a class that are compared with the taught words
_TEMPLATES = ("a photo of a {}.",)


def taught_words(folder: Path) -> tuple[str, ...]:
    """The words of ``words.txt`` in a checkpoint's folder; empty if there is no such file.

    A line is a word, a tab, and the number of training images that show it; ``#`` begins a comment.
    """
    path = folder / "words.txt"
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(line.partition("\t")[0] for line in lines if line and not line.startswith("#"))


class TaughtWords:
    """The words that a checkpoint was taught, and notes about others.

    Args:
        checkpoint: there are no notes if it has no ``words.txt``.
        encoder: the checkpoint's; None loads it on a CPU for the first word that needs it.
    """

    def __init__(self, checkpoint: ResolvedCheckpoint, encoder: Encoder | None = None) -> None:
        self._checkpoint, self._words = checkpoint, taught_words(checkpoint.folder)
        self._taught = {word.casefold() for word in self._words}
        self._given_encoder = encoder

    def notes(self, classes: Sequence[ClassPrompt]) -> list[str]:
        """Notes on the first classes of which no text was taught, nor one of nearly the same meaning.

        Args:
            classes: C classes.

        Raises:
            CliperError: the encoder is not given, and cannot be loaded.
        """
        if not self._words:
            return []
        unknown = [item for item in classes if not any(word_forms(prompt) & self._taught for prompt in item.prompts)]
        notes = self._describe([ClassPrompt(one.name, one.prompts[:_MAX_PROMPTS]) for one in unknown[:_MAX_NOTES]])
        if len(unknown) > _MAX_NOTES:
            more = len(unknown) - _MAX_NOTES
            notes.append(f"and {more} more classes that {self._checkpoint.name} was not taught")
        return notes

    def _describe(self, unknown: Sequence[ClassPrompt]) -> list[str]:
        if not unknown:
            return []
        model = self._checkpoint.name
        nearest, index = (encode_classes(self._encoder, unknown, _TEMPLATES) @ self._embeddings.T).max(1)
        notes = []
        for item, similarity, position in zip(unknown, nearest.tolist(), index.tolist(), strict=True):
            if similarity >= _SAME:
                continue
            text = item.prompts[0]
            shown = item.name if text == item.name else f"{item.name} ({text})"
            note = f"{shown}: not among the words that {model} was taught, so its result is a guess; "
            close = difflib.get_close_matches(text.casefold(), self._words, cutoff=0.75)
            if close:
                likely = min(close, key=self._words.index)  # training showed it most
                note += f"did you mean {likely!r}?"
            elif similarity < _UNRELATED:
                note += f"{model} knows English: for a word of another language write '{item.name}: dog'"
            else:
                note += f"near it: {self._words[position]!r}; ViT-B/16 (a download) knows more words"
            notes.append(note)
        return notes

    @cached_property
    def _encoder(self) -> Encoder:
        if self._given_encoder is not None:
            return self._given_encoder
        import torch

        from cliper.encoders.clip import load_encoder

        return load_encoder(self._checkpoint, device=torch.device("cpu"), dtype=torch.float32)

    @cached_property
    def _embeddings(self) -> Tensor:
        """[W, D], of the words."""
        return encode_classes(self._encoder, [ClassPrompt(word, (word,)) for word in self._words], _TEMPLATES)
