"""Files of settings: keys that are given twice, classes and background names."""

from __future__ import annotations

from pathlib import Path

import pytest

from cliper.errors import SettingsError
from cliper.settings import Settings, load_settings, load_words


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.yaml", "size: 336\nlogit_scale: 3\nsize: 224\n", "'size' is given twice, in lines 1 and 3"),
        ("a.yaml", "# head\n{size: 336, size: 224}", "'size' is given twice, in lines 2 and 2"),
        ("a.yaml", "classes: [{dog: a, dog: b}]", "'dog' is given twice, in lines 1 and 1"),
        ("a.json", '{"size": 336,\n"size": 224}', "'size' is given twice"),
    ],
)
def test_key_that_is_given_twice_is_refused(tmp_path: Path, name: str, content: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert str(caught.value).startswith(f"{path}: expected settings as YAML or JSON, could not read them: {words}")


@pytest.mark.parametrize(
    ("content", "classes", "background"),
    [
        ("size: 224", None, None),
        ("classes: dog; cat\nbackground: auto", ("dog; cat",), ("auto",)),
        ("classes: [dog, green grass]\nbackground: none", ("dog", "green grass"), ("none",)),
        ("classes:\n- person: man, woman\n- 'car: bus, van'", ("person: man, woman", "car: bus, van"), None),
        ("classes:\n- person: [man, woman]\nbackground: [wall]", ("person: man, woman",), ("wall",)),
    ],
)
def test_classes_and_background_are_read(
    tmp_path: Path, content: str, classes: tuple[str, ...] | None, background: tuple[str, ...] | None
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(content)
    words = load_words(path)
    assert (words.classes, words.background) == (classes, background)
    assert load_settings(path) == Settings(size=224 if "size" in content else 336)  # words are no settings


@pytest.mark.parametrize("value", ["5", "[no]", "[[dog]]", "[{a: b, c: d}]", "[{dog: 5}]", ""])
def test_names_that_are_no_text_are_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"classes: {value}")
    with pytest.raises(SettingsError, match=r"a\.yaml: classes: expected names such as 'dog'"):
        load_words(path)


def test_presets_have_no_words() -> None:
    assert load_words("vit-b-16/voc21").classes is None
    assert load_words(None).background is None
