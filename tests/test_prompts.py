"""Class lists, background words, templates, and text embeddings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from cliper.cache import SQLiteTextCache
from cliper.datasets import benchmark_texts
from cliper.encoders.clip import load_clip
from cliper.errors import ClassListError, SettingsError
from cliper.ops import facility_location
from cliper.prompts import (
    ClassPrompt,
    background_classes,
    encode_background,
    encode_classes,
    load_templates,
    parse_classes,
    read_classes,
    scene_background,
)
from cliper.settings import TEMPLATES, Settings


def pairs(classes: Sequence[ClassPrompt]) -> list[tuple[str, tuple[str, ...]]]:
    return [(item.name, item.prompts) for item in classes]


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(ClassListError) as caught:
        parse_classes(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    return message


# --- class lists -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("dog", [("dog", ("dog",))]),
        (" dog ;grass; wooden bench;", [("dog", ("dog",)), ("grass", ("grass",)), ("wooden bench", ("wooden bench",))]),
        (["dog; cat", "grass"], [("dog", ("dog",)), ("cat", ("cat",)), ("grass", ("grass",))]),
        ("person: man, woman", [("person", ("man", "woman"))]),
        ("a dog, sitting", [("a dog, sitting", ("a dog, sitting",))]),
        ("x : y : z", [("x", ("y : z",))]),
        ("sky: sky,, blue sky,", [("sky", ("sky", "blue sky"))]),
        (("dog", ClassPrompt("car", ("auto", "car"))), [("dog", ("dog",)), ("car", ("auto", "car"))]),
        ("Hund; 犬; naïve {}", [("Hund", ("Hund",)), ("犬", ("犬",)), ("naïve {}", ("naïve {}",))]),
        ((name for name in ("a", "b")), [("a", ("a",)), ("b", ("b",))]),
    ],
)
def test_class_lists(source: Any, expected: list[tuple[str, tuple[str, ...]]]) -> None:
    assert pairs(parse_classes(source)) == expected


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "at least one class, got none"),
        (" ; ;", "at least one class, got none"),
        ([], "at least one class, got none"),
        ([""], "at least one class, got none"),
        (["dog", " "], "got a blank one"),
        ("dog; cat; dog", "class 'dog' is given twice"),
        (["Dog", "dOG"], "class 'dOG' is given twice"),
        ("straße; STRASSE", "given twice"),
        ("dog: a; dog: b", "class 'dog' is given twice"),
        ("dog:", "expected a class as 'name' or 'name: prompt, other prompt', got 'dog:'"),
        (": dog", "got ': dog'"),
        ("dog: ,", "got 'dog: ,'"),
        (["dog", 3], "got 3"),
        (None, "got None"),
        (5, "got 5"),
        ("\udcff", "UTF-8"),
        (f"{'x' * 10_000}; {'x' * 10_000}", "given twice"),
    ],
)
def test_invalid_class_lists_are_refused(source: Any, words: str) -> None:
    assert words in refusal(source)


def test_messages_use_the_given_word_for_an_entry() -> None:
    assert "at least one background name" in refusal("", what="background name")
    assert "background name 'sky' is given twice" in refusal("sky; sky", what="background name")


@pytest.mark.parametrize(
    ("name", "prompts"), [("", ("a",)), (" ", ("a",)), ("a", ()), ("a", ("",)), ("a", "dog"), ("a", (1,)), (1, ("a",))]
)
def test_class_prompt_checks_its_fields(name: Any, prompts: Any) -> None:
    with pytest.raises(ClassListError):
        ClassPrompt(name, prompts)


names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters=":;,"), min_size=1, max_size=9)


@given(st.lists(names, min_size=1, max_size=8, unique_by=str.casefold))
def test_one_text_list_and_prompts_give_the_same_classes(classes: list[str]) -> None:
    expected = [(name, (name,)) for name in classes]
    assert pairs(parse_classes("; ".join(classes))) == expected
    assert pairs(parse_classes(classes)) == expected
    assert pairs(parse_classes(parse_classes(classes))) == expected


# --- class files -----------------------------------------------------------------------------------------


def test_class_file_with_byte_order_mark_comments_and_crlf(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    lines = ["\ufeff# what to look for", "", "dog", "  \t", "person: man, woman with a hat", "  # not this", "Äpfel"]
    path.write_bytes("\r\n".join(lines).encode() + b"\n")
    expected = [("dog", ("dog",)), ("person", ("man", "woman with a hat")), ("Äpfel", ("Äpfel",))]
    assert pairs(read_classes(path)) == expected
    assert pairs(read_classes(str(path))) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "at least one class, got none"),
        (b"# only this\n\n", "at least one class, got none"),
        (b"dog\nDog\n", "'Dog' is given twice"),
        (b"dog:\n", "got 'dog:'"),
        ("Äpfel".encode("latin-1"), "expected a class file in UTF-8, got other bytes"),
        ("dog".encode("utf-16"), "expected a class file in UTF-8, got other bytes"),
        ("dog".encode("utf-16-le"), "expected a class file in UTF-8, got null characters"),
    ],
)
def test_invalid_class_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    with pytest.raises(ClassListError) as caught:
        read_classes(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_class_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "no.txt", "No such file"),
        (tmp_path, "Is a directory"),
        ("~nobody-of-that-name/a.txt", "could not read"),
        ("nul\0", "could not read"),
        ("x" * 5000, "File name too long"),
    ):
        with pytest.raises(ClassListError, match=words):
            read_classes(path)


# --- background and templates ----------------------------------------------------------------------------


def scene(classes: str) -> set[str]:
    return {item.name for item in scene_background(parse_classes(classes))}


def test_scene_words_without_those_of_the_classes() -> None:
    everything = scene("zebra")
    assert {"sky", "grass", "wall", "building", "floor"} <= everything
    assert len(everything) >= 25
    assert everything - scene("Sky; green grass") == {"sky", "grass"}
    assert everything - scene("surface: water, wall") == {"water", "wall"}
    assert everything - scene("walls; beaches; bridges; trees") == {"wall", "bridge", "tree"}
    assert scene("skyscraper; seat") == everything
    assert scene("; ".join(everything)) == set()


def lexicon(classes: str) -> set[str]:
    return {item.name for item in scene_background(parse_classes(classes), lexicon=True)}


def test_lexicon_has_the_classes_of_coco_stuff_and_ade20k() -> None:
    texts = [item.name for family in ("coco-stuff", "ade") for item in benchmark_texts(family).classes]
    expected = set()
    for text in texts:
        name = re.sub(r"-(other|stuff)$", "", text)
        first, dash, second = name.partition("-")
        expected.add(name if not dash else first + second if first == "window" else second + first)
    expected -= {"solid", "structural", "person with cloth people human"}
    assert {name.replace(" ", "") for name in lexicon("xyz")} == expected


def test_lexicon_without_names_of_the_classes() -> None:
    everything = lexicon("xyz")
    assert everything - lexicon("walls; stair: steps") == {
        *("wall", "brick wall", "concrete wall", "panel wall", "stone wall", "tile wall", "wood wall"),
        *("stairs", "step"),
    }
    assert everything - lexicon("diningtable; cell phone: mobile") == {"dining table", "cell phone"}
    assert everything - lexicon("seat; category") == {"seat"}


def test_background_classes_are_scene_words_given_names_or_none() -> None:
    classes = parse_classes("dog; sky")
    assert background_classes(" auto ", classes) == scene_background(classes)
    assert pairs(background_classes("wall; old wood", classes)) == [("wall", ("wall",)), ("old wood", ("old wood",))]
    assert background_classes(["auto"], classes) == scene_background(classes)
    with pytest.raises(ClassListError, match="expected auto or none alone"):
        background_classes(["auto", "wall"], classes)
    for nothing in (None, "", [], "none", ["None"]):
        assert background_classes(nothing, classes) == []
    with pytest.raises(ClassListError, match="background name 'Wall' is given twice"):
        background_classes("wall; Wall", classes)


def test_templates() -> None:
    assert len(load_templates("scene15")) == len(set(load_templates("scene15"))) == 15
    assert len(load_templates("imagenet80")) == len(set(load_templates("imagenet80"))) == 80
    assert all(form.count("{}") == 1 for name in TEMPLATES for form in load_templates(name))
    # docs/method.md lists them.
    sizes = ("small", "medium", "large")
    assert set(load_templates("scene15")) == {
        "a clean origami {}.",
        "a photo of a {}.",
        "This is a photo of a {}",
        "There is a {} in the scene",
        "There is the {} in the scene",
        "a photo of a {} in the scene",
        *(f"a photo of a {size} {{}}." for size in sizes),
        *(f"This is a photo of a {size} {{}}." for size in sizes),
        *(f"There is a {size} {{}} in the scene." for size in sizes),
    }
    assert load_templates(["x {}"]) == ("x {}",)
    with pytest.raises(SettingsError, match="expected one of imagenet80, scene15 or a list, got 'no'"):
        load_templates("no")


# --- embeddings ------------------------------------------------------------------------------------------

# Both compute in float32. The package pads to the longest text of a batch and the reference to 77, so sums are taken in
# another order: about 1e-6 for values of about 0.1.
TOLERANCE = 1e-5


@torch.no_grad()
def reference(folder: Path, classes: Sequence[ClassPrompt], templates: Sequence[str]) -> torch.Tensor:
    """docs/method.md, section 1, with transformers alone and every text padded to 77 tokens."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)

    def prompt(text: str) -> torch.Tensor:
        texts = [form.format(text) for form in templates]
        tokens = tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")
        pooled = model.text_model(**tokens).pooler_output
        return F.normalize(F.normalize(model.text_projection(pooled), dim=-1).mean(0), dim=0)

    return torch.stack([F.normalize(torch.stack([prompt(p) for p in c.prompts]).mean(0), dim=0) for c in classes])


SOME = "dog; person: person with clothes, people, human; a very long wooden bench by the sea; naïve {}"
TWO = "dog; tvmonitor screen"


@pytest.mark.parametrize("templates", ["scene15", "imagenet80", ["{}", "it is {}, surely"]])
@pytest.mark.parametrize("which", ["tiny", "mini"])
def test_embeddings_equal_the_reference(which: str, templates: Any, request: pytest.FixtureRequest) -> None:
    segmenter = request.getfixturevalue(which)
    classes = parse_classes(TWO if templates == "imagenet80" else SOME)
    got = encode_classes(segmenter.encoder, classes, templates)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.norm(dim=-1), torch.ones(len(classes)), atol=1e-6, rtol=0)
    expected = reference(segmenter.checkpoint.folder, classes, load_templates(templates))
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
    # The embeddings differ, or the comparison would show nothing.
    assert (got @ got.T - torch.eye(len(classes))).max() < 0.999


class RecordingEncoder:
    """An encoder that records its texts; each text has a random embedding of its own."""

    device = torch.device("cpu")

    def __init__(self, fingerprint: str = "a") -> None:
        self.texts: list[str] = []
        self.print = fingerprint

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        self.texts.extend(texts)
        rows = [torch.randn(16, generator=torch.Generator().manual_seed(hash(t) % 2**31)) for t in texts]
        return F.normalize(torch.stack(rows), dim=-1)

    def text_fingerprint(self) -> str:
        return self.print


def test_cached_classes_are_not_encoded_again(own_cache: Path) -> None:
    classes = parse_classes("; ".join(f"thing number {i}" for i in range(1000)))
    first, second = RecordingEncoder(), RecordingEncoder()
    expected = encode_classes(first, classes, "scene15", SQLiteTextCache())
    assert len(first.texts) == 15_000
    got = encode_classes(second, classes, "scene15", SQLiteTextCache())
    assert second.texts == []
    assert torch.equal(got, expected)
    assert (own_cache / "text-embeddings.sqlite").is_file()
    encode_classes(second, [*classes, ClassPrompt("new", ("new",))], "scene15", SQLiteTextCache())
    assert len(second.texts) == 15


def test_prompt_shared_by_two_classes_is_encoded_once() -> None:
    encoder = RecordingEncoder()
    encode_classes(encoder, parse_classes("a: cat, dog; b: dog, cow; cow"), ["{}"])
    assert sorted(encoder.texts) == ["cat", "cow", "dog"]


def test_cache_distinguishes_templates_fingerprints_and_prompts() -> None:
    cache = SQLiteTextCache()

    def encoded(templates: Any, fingerprint: str = "a", name: str = "dog") -> int:
        encoder = RecordingEncoder(fingerprint)
        encode_classes(encoder, [ClassPrompt(name, (name,))], templates, cache)
        return len(encoder.texts)

    assert encoded(["a {}", "b {}"]) == 2
    assert encoded(["a {}", "b {}"]) == 0
    assert encoded(["b {}", "a {}"]) == 2
    assert encoded(["a {}"]) == 1
    assert encoded(["a {}", "b {}"], fingerprint="b") == 2
    assert encoded(["a {}", "b {}"], name="Dog") == 2
    assert encoded(["a {}"], name="b {}\0dog") == 1


def test_fingerprint_depends_on_dtype(clip_folder: Path) -> None:
    device = torch.device("cpu")
    prints = {
        load_clip(clip_folder, device=device, dtype=d).text_fingerprint() for d in (torch.float32, torch.bfloat16)
    }
    again = load_clip(clip_folder, device=device, dtype=torch.float32).text_fingerprint()
    assert len(prints) == 2
    assert again in prints


@pytest.mark.parametrize("change", ["weights", "tokenizer", "activation", "end token"])
def test_fingerprint_depends_on_the_checkpoints_files(own_clip: Path, change: str) -> None:
    import json

    from safetensors.torch import load_file, save_file

    device = torch.device("cpu")
    before = load_clip(own_clip, device=device, dtype=torch.float32).text_fingerprint()
    if change == "weights":
        tensors = load_file(own_clip / "model.safetensors")
        tensors["text_projection.weight"][0, 0] += 1e-3
        save_file(tensors, own_clip / "model.safetensors", metadata={"format": "pt"})
    elif change == "tokenizer":
        path = own_clip / "tokenizer.json"
        path.write_text(path.read_text() + " ")
    else:
        path = own_clip / "config.json"
        config = json.loads(path.read_text())
        text = config["text_config"]
        text.update({"hidden_act": "gelu"} if change == "activation" else {"eos_token_id": 15998})
        path.write_text(json.dumps(config))
    assert load_clip(own_clip, device=device, dtype=torch.float32).text_fingerprint() != before


def test_texts_of_too_many_tokens_are_refused(tiny: Any) -> None:
    for text in ("x" * 10_000, "word " * 100, "犬" * 10_000):
        with pytest.raises(ClassListError, match="expected a text of at most 77 tokens") as caught:
            encode_classes(tiny.encoder, [ClassPrompt("a", (text,))], "scene15", SQLiteTextCache())
        assert len(str(caught.value)) < 300
    # 10,000 characters, but three tokens: accepted.
    (item,) = parse_classes("a" + " " * 9998 + "b")
    a = encode_classes(tiny.encoder, [item], "scene15")
    torch.testing.assert_close(a, encode_classes(tiny.encoder, parse_classes("a b"), "scene15"))


# --- background ---------------------------------------------------------------------------------------------


def test_automatic_background_drops_words_that_mean_a_class(mini: Any) -> None:
    classes = parse_classes("sea; dog")
    foreground = mini.encode_text(classes)

    def count(similarity: float, background: Any = "auto") -> int:
        settings = mini.settings.replace(background_similarity=similarity)
        names, rows = encode_background(mini.encoder, background, classes, foreground, settings)
        assert len(names) == len(rows)
        return len(names)

    words = scene_background(classes)
    embedded = mini.encode_text(words)
    near = (embedded @ foreground.T).amax(1)
    for similarity in (0.0, 0.5, 0.8, 1.0):
        assert count(similarity) == sum(value < similarity for value in near.tolist())
    # Names that a person gave are never dropped.
    assert count(0.0, words) == len(words)


def test_automatic_background_is_chosen_for_the_classes() -> None:
    """Against the parts in order: names of no class, unlike all classes, then the most representative of these."""
    encoder, classes = RecordingEncoder(), parse_classes("walls; dog")
    foreground = encode_classes(encoder, classes, ["{}"])
    settings = Settings(templates=("{}",), background_similarity=0.3, background_count=12)
    names, rows = encode_background(encoder, "auto", classes, foreground, settings)
    candidates = scene_background(classes, lexicon=True)
    embedded = encode_classes(encoder, candidates, ["{}"])
    unlike = [index for index, row in enumerate(embedded @ foreground.T) if row.max() < 0.3]
    assert 12 < len(unlike) < len(candidates)
    chosen = [unlike[index] for index in facility_location(embedded[unlike], 12).tolist()]
    assert names == [candidates[index] for index in chosen]
    assert torch.equal(rows, embedded[chosen])
    everything, _ = encode_background(encoder, "auto", classes, foreground, settings.replace(background_count=1000))
    assert {item.name for item in everything} == {candidates[index].name for index in unlike}


def test_names_that_a_person_gave_are_kept_whatever_the_count() -> None:
    encoder, classes, own = RecordingEncoder(), parse_classes("wall; dog"), parse_classes("wall; sky; old wall")
    foreground = encode_classes(encoder, classes, ["{}"])
    settings = Settings(templates=("{}",), background_similarity=0, background_count=1)
    names, rows = encode_background(encoder, own, classes, foreground, settings)
    assert names == own
    assert torch.equal(rows, encode_classes(encoder, own, ["{}"]))


def test_chosen_background_is_encoded_once(own_cache: Path) -> None:
    classes, settings = parse_classes("dog; cat"), Settings(background_count=8)
    first, second = RecordingEncoder(), RecordingEncoder()
    found = []
    for encoder in (first, second):
        foreground = encode_classes(encoder, classes, "scene15", SQLiteTextCache())
        found.append(encode_background(encoder, "auto", classes, foreground, settings, SQLiteTextCache()))
    assert second.texts == []
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("background", ["none", " None", None, []])
def test_one_class_without_background_is_refused(mini: Any, background: Any) -> None:
    with pytest.raises(ClassListError, match="one class without background names would cover the whole image: 'zebra'"):
        mini(Image.new("RGB", (32, 32)), "zebra", background=background)


def test_background_none_is_no_name() -> None:
    assert background_classes("none", parse_classes("dog; cat")) == []
