"""The words of each vocabulary, and the lists they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.datasets import Benchmark, custom_benchmark, find_benchmark, make_vocabulary
from cliper.errors import InputError
from cliper.prompts import ClassPrompt, parse_classes, word_forms
from dataset_trees import NAMES

CLASSES = "dog; grass: green grass, lawn; horse: pony"


def words(benchmark: Benchmark, name: str, **options: Any) -> list[str]:
    """The only prompt of each class."""
    prompts = [item.prompts for item in make_vocabulary(benchmark, name, **options).texts.classes]
    assert all(len(one) == 1 for one in prompts)
    return [one[0] for one in prompts]


def possible_synonyms(benchmark: Benchmark) -> list[set[str]]:
    """Of each class, those that any of 60 seeds chooses: with at most four, each is missed once in 10^7 lists."""
    chosen = [words(benchmark, "synonyms", seed=seed) for seed in range(60)]
    return [set(column) for column in zip(*chosen, strict=True)]


def own(folder: Path, classes: str) -> Benchmark:
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / kind / "a.png")
    return custom_benchmark(folder / "images", folder / "masks", parse_classes(classes), background="auto")


@pytest.mark.parametrize("name", NAMES)
def test_curated_words_are_those_of_the_benchmark(name: str) -> None:
    benchmark = find_benchmark(name)
    vocabulary = make_vocabulary(benchmark, "curated", background="auto", seed=3)
    assert (vocabulary.texts, vocabulary.distractors) == (benchmark.texts, ())


@pytest.mark.parametrize("name", NAMES)
def test_plain_names_are_the_tables_names_with_words_apart(name: str) -> None:
    benchmark = find_benchmark(name)
    plain = words(benchmark, "plain")
    assert len({one.casefold() for one in plain}) == len(benchmark.class_names)
    for one, table_name in zip(plain, benchmark.class_names, strict=True):
        parts = one.split()
        joined = {"".join(parts), "".join(reversed(parts))}  # "wall-brick" is a brick wall
        stem = table_name.replace(" ", "").removesuffix("-other").removesuffix("-stuff").replace("-", "")
        assert stem in joined or (stem, one) == ("structural", "structure")
    texts = make_vocabulary(benchmark, "plain").texts
    assert texts.background == ()
    assert [item.name for item in texts.classes] == list(benchmark.class_names)


@pytest.mark.parametrize("name", NAMES)
def test_synonyms_name_their_class_and_no_other(name: str) -> None:
    benchmark = find_benchmark(name)
    plain, synonyms = words(benchmark, "plain"), possible_synonyms(benchmark)
    owners: dict[str, str] = {}
    for own_name, others in zip(plain, synonyms, strict=True):
        assert len(others) >= 2, own_name
        for word in others:
            for form in word_forms(word):
                assert owners.setdefault(form, own_name) == own_name, word
    for own_name, table_name in zip(plain, benchmark.class_names, strict=True):
        assert not (word_forms(own_name) | word_forms(table_name)) & set(owners)


@pytest.mark.parametrize("name", NAMES)
def test_distractors_name_no_class(name: str) -> None:
    benchmark = find_benchmark(name)
    vocabulary = make_vocabulary(benchmark, "distractors")
    plain = words(benchmark, "plain")
    assert vocabulary.name == "distractors:100"
    assert words(benchmark, "distractors") == [*plain, *vocabulary.distractors]
    assert len(set(vocabulary.distractors)) == 100
    with pytest.raises(InputError, match=r"at most \d+ for .*, got 999") as caught:
        make_vocabulary(benchmark, "distractors:999")
    most = int(str(caught.value).split("at most ")[1].split()[0])
    everything = set(make_vocabulary(benchmark, f"distractors:{most}").distractors)
    named = [form for one in plain for form in word_forms(one)]
    others = [form for column in possible_synonyms(benchmark) for word in column for form in word_forms(word)]
    for word in everything:
        assert not word_forms(word) & {*named, *others}
        assert not set(word.split()) & set(named), word  # "rocking horse"
    if "animal" in plain:
        assert not everything & {"lion", "parrot", "ant"}


def test_wild_cats_are_no_distractors_where_cat_is_a_class() -> None:
    for name, cats in (("voc21", set()), ("cityscapes", {"leopard", "lion", "tiger"})):
        with pytest.raises(InputError, match=r"at most (\d+)") as caught:
            make_vocabulary(find_benchmark(name), "distractors:999")
        most = str(caught.value).split("at most ")[1].split()[0]
        found = make_vocabulary(find_benchmark(name), f"distractors:{most}").distractors
        assert {"leopard", "lion", "tiger"} & set(found) == cats


def test_seed_alone_chooses_the_words() -> None:
    benchmark = find_benchmark("voc21")
    for name in ("synonyms", "distractors:50"):
        assert make_vocabulary(benchmark, name, seed=1) == make_vocabulary(benchmark, name, seed=1)
        assert words(benchmark, name, seed=1) != words(benchmark, name, seed=2)
    few, many = (make_vocabulary(benchmark, f"distractors:{n}").distractors for n in (10, 20))
    assert many[:10] == few
    assert make_vocabulary(benchmark, "synonyms").texts.classes[14] == ClassPrompt("person", ("human being",))


def test_background_is_given_to_all_but_curated() -> None:
    benchmark = find_benchmark("voc21")
    for name in ("plain", "synonyms", "distractors"):
        assert make_vocabulary(benchmark, name, background="auto").texts.background == "auto"
        names = parse_classes("wall; sky")
        assert make_vocabulary(benchmark, name, background=names).texts.background == tuple(names)


def test_words_of_custom_data_are_those_of_the_class_file(tmp_path: Path) -> None:
    benchmark = own(tmp_path, CLASSES)
    assert make_vocabulary(benchmark, "curated").texts.background == "auto"
    assert words(benchmark, "plain") == ["dog", "grass", "horse"]
    with pytest.raises(InputError, match=r"another prompt than its name for each class, got none for dog; .*'dog: "):
        make_vocabulary(benchmark, "synonyms")
    assert len(words(benchmark, "distractors:30")) == 33


def test_synonyms_of_custom_data_are_its_prompts(tmp_path: Path) -> None:
    benchmark = own(tmp_path, "Dog: dog, puppy; grass: green grass, lawn")
    assert possible_synonyms(benchmark) == [{"puppy"}, {"green grass", "lawn"}]


def test_kinds_of_a_custom_class_are_no_distractors(tmp_path: Path) -> None:
    benchmark = own(tmp_path, "animals; food; zither: guitar")
    most = make_vocabulary(benchmark, "distractors:150").distractors
    assert not {"lion", "parrot", "soup", "guitar"} & set(most)


@pytest.mark.parametrize("name", ["", "plane", "plain:3", "distractors:0", "distractors:x", "distractors:"])
def test_unknown_vocabularies_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="expected a vocabulary, one of curated, plain, synonyms, distractors and"):
        make_vocabulary(find_benchmark("voc21"), name)
