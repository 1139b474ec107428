"""Notes about words that a checkpoint was not taught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cliper.prompts import parse_classes
from cliper.vocabulary import TaughtWords, taught_words


def notes(segmenter: Any, classes: str) -> list[str]:
    return TaughtWords(segmenter.checkpoint, segmenter.encoder).notes(parse_classes(classes))


def test_words_are_read_from_the_folder(tmp_path: Path) -> None:
    assert taught_words(tmp_path) == ()
    (tmp_path / "words.txt").write_text("# word, images\ndog\t3\npotted plant\t1\n", encoding="utf-8")
    assert taught_words(tmp_path) == ("dog", "potted plant")


@pytest.mark.parametrize("word", ["horse", "Horses", "potted plant", "horse rider", "vehicle: lorry, car"])
def test_words_taught_or_of_the_same_meaning_have_no_note(mini: Any, word: str) -> None:
    assert notes(mini, word) == []


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("hrose", "did you mean 'horse'?"),
        ("Hund", "mini knows English: for a word of another language write 'Hund: dog'"),
        ("wooden bench", "near it: 'bench'; ViT-B/16 (a download) knows more words"),
    ],
)
def test_other_words_are_guesses(mini: Any, word: str, hint: str) -> None:
    [note] = notes(mini, f"dog; {word}")
    assert note == f"{word}: not among the words that mini was taught, so its result is a guess; {hint}"


def test_text_that_is_not_the_name_is_shown(mini: Any) -> None:
    [note] = notes(mini, "rider: hrose")
    assert note.startswith("rider (hrose): not among the words")
    assert note.endswith("did you mean 'horse'?")


def test_encoder_is_loaded_if_it_is_not_given(mini: Any) -> None:
    words = TaughtWords(mini.checkpoint)
    assert words.notes(parse_classes("dog; Hund")) == notes(mini, "dog; Hund") != []


def test_only_the_first_classes_are_described(mini: Any) -> None:
    found = notes(mini, "; ".join(f"zyx{number}" for number in range(9)))
    assert len(found) == 6
    assert found[-1] == "and 4 more classes that mini was not taught"


def test_checkpoint_without_a_list_has_no_notes(tiny: Any) -> None:
    assert notes(tiny, "Hund") == []
