"""Vocabularies: the words by which an evaluation asks for the classes of a benchmark."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from cliper.datasets.benchmark import Benchmark
from cliper.datasets.texts import BenchmarkTexts
from cliper.errors import InputError
from cliper.prompts import ClassPrompt, word_forms

__all__ = ["VOCABULARIES", "Vocabulary", "make_vocabulary", "synonyms_of"]

VOCABULARIES = ("curated", "plain", "synonyms", "distractors")
DEFAULT_DISTRACTORS = 100


@dataclass(frozen=True)
class Vocabulary:
    """The words of an evaluation.

    Args:
        name: one of :data:`VOCABULARIES`, distractors with their number: ``"distractors:100"``.
        texts: prompts of the C classes in label order, then of the distractors; background names.
        distractors: D names; distractor i has label ``C + 1 + i``, which no ground truth holds.
        seed: that chose synonyms and distractors.
    """

    name: str
    texts: BenchmarkTexts
    distractors: tuple[str, ...] = ()
    seed: int = 0


def make_vocabulary(
    benchmark: Benchmark, name: str, *, background: Sequence[ClassPrompt] | str = (), seed: int = 0
) -> Vocabulary:
    """One of the vocabularies of a benchmark.

    ``curated``: the benchmark's own prompts and background. ``plain``: the names of the data set, or of the class file.
    ``synonyms``: each class by another name; in custom data by one of its prompts other than its name. ``distractors``
    or ``distractors:N``: the plain names, and N (100) names of things that are no class of the benchmark.

    Args:
        benchmark: a published or a custom one.
        name: as above.
        background: names of the background, or ``"auto"``; ``curated`` keeps its own.
        seed: chooses synonyms and distractors; the first N distractors of a seed are the same for any number.

    Raises:
        InputError: no such vocabulary, a class of custom data without a synonym, or too many distractors.

    Example:
        >>> from cliper.datasets import find_benchmark
        >>> [item.prompts for item in make_vocabulary(find_benchmark("voc21"), "plain").texts.classes[14:16]]
        [('person',), ('potted plant',)]
    """
    kind, count = _parse_name(name)
    if kind == "curated":
        return Vocabulary(kind, benchmark.texts)
    words = _plain_names(benchmark)
    distractors: tuple[str, ...] = ()
    if kind == "synonyms":
        words = tuple(_shuffle(others, seed)[0] for others in synonyms_of(benchmark))
    if kind == "distractors":
        distractors = _choose_distractors(benchmark, count, seed)
        kind = f"{kind}:{count}"
    named = [*zip(benchmark.class_names, words, strict=True), *zip(distractors, distractors, strict=True)]
    classes = tuple(ClassPrompt(label, (word,)) for label, word in named)
    chosen = background if isinstance(background, str) else tuple(background)
    return Vocabulary(kind, BenchmarkTexts(classes, chosen), distractors, seed)


def _parse_name(name: str) -> tuple[str, int]:
    """Kind, and number of distractors."""
    found = re.fullmatch(r"(curated|plain|synonyms|distractors)|(distractors):0*([1-9]\d{0,5})", name.strip().lower())
    if found is None:
        raise InputError(f"expected a vocabulary, one of {', '.join(VOCABULARIES)} and distractors:N, got {name!r}")
    return found[1] or found[2], int(found[3] or DEFAULT_DISTRACTORS)


def _plain_names(benchmark: Benchmark) -> tuple[str, ...]:
    """Names of the classes in the data set."""
    return tuple(_load("class_names")[benchmark.family]) if benchmark.family else benchmark.class_names


def synonyms_of(benchmark: Benchmark) -> list[list[str]]:
    """Synonyms of each class, at least one. Raises InputError if custom data has none of a class."""
    plain = _plain_names(benchmark)
    if benchmark.family:
        synonyms = _load("synonyms")
        known = synonyms["common"] | synonyms.get(benchmark.family, {})
        named = {*plain, *benchmark.class_names}
        return [[word for word in known[name] if word not in named] for name in plain]
    prompts = [item.prompts for item in benchmark.texts.classes]
    others = [
        [prompt for prompt in own if prompt.casefold() != name.casefold()]
        for name, own in zip(plain, prompts, strict=True)
    ]
    missing = [name for name, words in zip(plain, others, strict=True) if not words]
    if missing:
        raise InputError(
            f"synonyms: expected another prompt than its name for each class, got none for {', '.join(missing)}; write "
            f"the class as '{missing[0]}: other name' or leave the vocabulary out"
        )
    return others


def _choose_distractors(benchmark: Benchmark, count: int, seed: int) -> tuple[str, ...]:
    """Names that are neither classes of the benchmark, nor synonyms, nor kinds of one."""
    plain = _plain_names(benchmark)
    prompts = [prompt for item in benchmark.texts.classes for prompt in item.prompts]
    others = [word for words in synonyms_of(benchmark) for word in words] if benchmark.family else []
    names = _forms([*plain, *benchmark.class_names])
    taken = names | _forms([*prompts, *others])
    groups = [group["names"] for group in _load("distractors") if not names & _forms(group["kind_of"])]
    free = [word for group in groups for word in group if not word_forms(word) & taken]
    if count > len(free):
        raise InputError(f"distractors: expected at most {len(free)} for {benchmark.name}, got {count}")
    return tuple(_shuffle(free, seed)[:count])


def _forms(words: Iterable[str]) -> set[str]:
    return {form for word in words for form in word_forms(word)}


def _shuffle(words: Sequence[str], seed: int) -> list[str]:
    """In an order that depends on the seed and the words alone, the same in every version of Python."""
    return sorted(words, key=lambda word: hashlib.sha256(f"{seed} {word}".encode()).digest())


@cache
def _load(name: str) -> Any:
    """A list of the assets.

    ``class_names``: by family, names in label order. ``synonyms``: by family or ``common``, lists by name.
    ``distractors``: groups with ``names`` and ``kind_of``.
    """
    text = (resources.files("cliper") / "assets" / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)
