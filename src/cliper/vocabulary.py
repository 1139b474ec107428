"""The words that a checkpoint was taught, and notes about words that it was not."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cliper.prompts import ClassPrompt, encode_classes, word_forms

if TYPE_CHECKING:
    from cliper.checkpoints import ResolvedCheckpoint
    from cliper.encoders.base import Encoder

__all__ = ["taught_words", "word_notes"]

# Cosine to a taught word from which a text means nearly the same, and below which it means nothing like it. Of mini:
# "horse rider" 0.93, "wooden bench" 0.78, "desk" 0.67, "Hund" 0.50.
_SAME, _UNRELATED = 0.85, 0.52
_MAX_NOTES = 5
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


def word_notes(encoder: Encoder, checkpoint: ResolvedCheckpoint, classes: Sequence[ClassPrompt]) -> list[str]:
    """Notes on the first classes of which the checkpoint was taught no text, nor one of nearly the same meaning.

    Args:
        encoder: the text tower.
        checkpoint: of the encoder; there are no notes if it has no ``words.txt``.
        classes: C classes.
    """
    words, model = taught_words(checkpoint.folder), checkpoint.name
    taught = {word.casefold() for word in words}
    unknown = [item for item in classes if words and not any(word_forms(prompt) & taught for prompt in item.prompts)]
    if not unknown:
        return []
    known = encode_classes(encoder, [ClassPrompt(word, (word,)) for word in words], _TEMPLATES)
    nearest, index = (encode_classes(encoder, unknown, _TEMPLATES) @ known.T).max(1)
    notes = []
    for item, similarity, position in zip(unknown, nearest.tolist(), index.tolist(), strict=True):
        if similarity >= _SAME:
            continue
        note = f"{item.name}: not among the words that {model} was taught, so its result is a guess; "
        close = difflib.get_close_matches(item.prompts[0].casefold(), words, cutoff=0.75)
        if close:
            note += f"did you mean {min(close, key=words.index)!r}?"  # the one that training showed most
        elif similarity < _UNRELATED:
            note += f"{model} knows English: for a word of another language write '{item.name}: dog'"
        else:
            note += f"near it: {words[position]!r}; ViT-B/16 (a download) knows more words"
        notes.append(note)
    if len(notes) > _MAX_NOTES:
        notes[_MAX_NOTES:] = [f"and {len(notes) - _MAX_NOTES} more classes that {model} was not taught"]
    return notes
