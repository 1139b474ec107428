"""Class lists, text templates and background names, and their text embeddings.

Source: ``docs/method.md``, section 1, "Text".
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from cliper.errors import ClassListError, SettingsError, reraise

if TYPE_CHECKING:
    from torch import Tensor

    from cliper.cache import TextEmbeddingCache
    from cliper.encoders.base import Encoder
    from cliper.settings import Settings

__all__ = [
    "ClassPrompt",
    "Classes",
    "background_classes",
    "background_keyword",
    "encode_background",
    "encode_classes",
    "format_classes",
    "load_templates",
    "name_forms",
    "parse_classes",
    "read_classes",
    "scene_background",
    "split_commas",
    "word_forms",
]

_LOG = logging.getLogger("cliper.prompts")


@dataclass(frozen=True)
class ClassPrompt:
    """A class: its name, and the texts that represent it.

    Args:
        name: for results and legends.
        prompts: one text or several (synonyms); ``merge_synonyms`` of the settings says what they mean together.

    Raises:
        ClassListError: a blank name or prompt, no prompts, or a text that is not Unicode.
    """

    name: str
    prompts: tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.prompts, str) or not self.prompts:
            raise ClassListError(f"expected at least one prompt, as a tuple of texts, got {self.prompts!r}")
        object.__setattr__(self, "prompts", tuple(self.prompts))
        for text in (self.name, *self.prompts):
            if not isinstance(text, str) or not text.strip():
                raise ClassListError(f"expected names and prompts that are not blank, got {text!r}")
            try:
                text.encode()
            except UnicodeEncodeError:  # Python decodes arguments that are not UTF-8 to surrogates
                raise ClassListError(f"expected a name in UTF-8, got {_short(text)}") from None


Classes = str | Sequence[str | ClassPrompt]
"""Class lists as :func:`parse_classes` reads them."""


def parse_classes(source: str | Iterable[str | ClassPrompt], *, what: str = "class") -> list[ClassPrompt]:
    """Read a class list.

    Args:
        source: ``"dog; grass; wooden bench"``, or a list of such texts and of :class:`ClassPrompt`. An entry
            ``"person: man, woman"`` is the class ``person`` with two prompts; an entry without a colon is one prompt,
            including its commas.
        what: the word for an entry in error messages.

    Returns:
        At least one class.

    Raises:
        ClassListError: no class, a blank one, a name given twice (case does not matter), or a colon without a text
            on one of its sides.

    Example:
        >>> [c.name for c in parse_classes("dog; person: man, woman")]
        ['dog', 'person']
    """
    if not isinstance(source, Iterable):
        raise ClassListError(f'expected a {what} list, got {source!r}; give names such as "dog; grass"')
    if isinstance(source, Set | Mapping):
        raise ClassListError(f"expected {what} names in their order, got a {type(source).__name__}; give a list")
    texts = [source] if isinstance(source, str) else list(source)
    classes: list[ClassPrompt] = []
    for text in texts:
        if isinstance(text, ClassPrompt):
            classes.append(text)
            continue
        if not isinstance(text, str):
            raise ClassListError(f"expected {what} names as text, got {text!r}")
        parts = [part for part in text.split(";") if part.strip()]
        if not parts and len(texts) > 1:
            raise ClassListError(f"expected {what} names, got a blank one; remove it")
        classes.extend(_entry(part, what) for part in parts)
    if not classes:
        raise ClassListError(f'expected at least one {what}, got none; give names such as "dog; grass"')
    seen: dict[str, str] = {}
    for item in classes:
        key = item.name.casefold()
        if key in seen:
            raise ClassListError(f"{what} {_short(item.name)} is given twice; name it once")
        seen[key] = item.name
    return classes


def split_commas(text: str, notify: Callable[[str], object], *, what: str = "classes") -> list[str]:
    """Entries of a class list that a person typed: commas separate classes, but not in ``person: man, woman``.

    Args:
        text: entries separated by semicolons.
        notify: called with a notice about each entry that commas separate.
        what: the word for entries in notices.

    Example:
        >>> split_commas("dog, cat; person: man, woman", print)
        'dog, cat' names 2 classes
        ['dog', ' cat', ' person: man, woman']
    """
    entries: list[str] = []
    for entry in text.split(";"):
        parts = [part for part in entry.split(",") if part.strip()]
        if ":" in entry or len(parts) < 2:
            entries.append(entry)
        else:
            entries += parts
            notify(f"{_short(entry.strip())} names {len(parts)} {what}")
    return [entry for entry in entries if entry.strip()] or [text]


def read_classes(path: str | Path) -> list[ClassPrompt]:
    """Read a class file: UTF-8, one class a line (``name`` or ``name: prompt, other prompt``).

    Blank lines and lines that begin with ``#`` are ignored.

    Raises:
        ClassListError: the file cannot be read, or :func:`parse_classes` refuses the list.
    """
    # ValueError: a null character in the path; RuntimeError: a home folder that does not exist.
    with reraise((OSError, ValueError, RuntimeError), ClassListError, f"{path}: could not read the class file"):
        content = Path(path).expanduser().read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ClassListError(f"{path}: expected a class file in UTF-8, got other bytes; save it as UTF-8") from None
    if "\0" in text:
        raise ClassListError(f"{path}: expected a class file in UTF-8, got null characters; save it as UTF-8")
    lines = [line.strip() for line in text.splitlines()]
    entries = [line for line in lines if line and not line.startswith("#")]
    try:
        return parse_classes([_entry(line, "class") for line in entries])
    except ClassListError as error:
        raise ClassListError(f"{path}: {error}") from None


def format_classes(classes: Sequence[ClassPrompt]) -> list[str]:
    """Entries from which :func:`parse_classes` makes the classes again.

    Example:
        >>> format_classes(parse_classes("dog; person: man, woman"))
        ['dog', 'person: man, woman']
    """
    return [one.name if one.prompts == (one.name,) else f"{one.name}: {', '.join(one.prompts)}" for one in classes]


def background_keyword(names: Sequence[str], origin: str) -> str | None:
    """``"auto"`` or ``"none"`` if that is the only one of the names, else None.

    Raises:
        ClassListError: one of them beside other names; the message begins with ``origin``.
    """
    words = [word.strip().casefold() for name in names for word in name.split(";") if word.strip()]
    found = {"auto", "none"}.intersection(words)
    if found and len(words) > 1:
        raise ClassListError(f"{origin}: expected auto or none alone, or names; got several of them")
    return words[0] if found else None


def background_classes(
    background: Classes | None, classes: Sequence[ClassPrompt], *, lexicon: bool = False
) -> list[ClassPrompt]:
    """Read background names.

    Args:
        background: names as for :func:`parse_classes`; ``"auto"`` for :func:`scene_background`; ``"none"``, None or
            empty for none; a list of one of these words is that word.
        classes: the classes.
        lexicon: as for :func:`scene_background`.

    Raises:
        ClassListError: the names cannot be read.
    """
    if keyword := _keyword(background):
        return scene_background(classes, lexicon=lexicon) if keyword == "auto" else []
    return parse_classes(background, what="background name") if background else []


def scene_background(classes: Sequence[ClassPrompt], *, lexicon: bool = False) -> list[ClassPrompt]:
    """Built-in names of scenes and things except those that name a class.

    A name is left out if one of its words, or all of them written as one, occurs in a class's name or prompts, in
    singular or plural.

    Args:
        classes: the classes.
        lexicon: whether the names are the 261 of the lexicon, or a short list of common scene words.
    """
    texts = [text for item in classes for text in (item.name, *item.prompts)]
    taken = {form for text in texts for word in re.findall(r"\w+", text.casefold()) for form in word_forms(word)}
    names = _read_names("scene_lexicon.txt" if lexicon else "scene_words.txt")
    return [ClassPrompt(name, (name,)) for name in names if not name_forms(name) & taken]


def name_forms(name: str) -> set[str]:
    """The forms of a background name's words, and of all of them written as one: a class with one of them names it.

    Example:
        >>> sorted(name_forms("tree house"))
        ['house', 'tree', 'treehouse']
    """
    return {form for word in (*name.split(), name.replace(" ", "")) for form in word_forms(word)}


def word_forms(text: str) -> set[str]:
    """A word in lower case as it is written, and as the singular that it may be the plural of.

    Example:
        >>> sorted(word_forms("Buses"))
        ['bus', 'buse', 'buses']
    """
    word = " ".join(text.casefold().split())
    return {word, word.removesuffix("s"), word.removesuffix("es")}


def load_templates(source: str | Sequence[str]) -> tuple[str, ...]:
    """Templates by the name of a built-in list; a list of templates is returned as it is.

    Raises:
        SettingsError: there is no list of that name.

    Example:
        >>> len(load_templates("scene15")), len(load_templates("imagenet80"))
        (15, 80)
    """
    if not isinstance(source, str):
        return tuple(source)
    known = _templates()
    if source not in known:
        raise SettingsError(f"templates: expected one of {', '.join(sorted(known))} or a list, got {source!r}")
    return known[source]


def encode_classes(
    encoder: Encoder,
    classes: Sequence[ClassPrompt],
    templates: str | Sequence[str],
    cache: TextEmbeddingCache | None = None,
) -> Tensor:
    """Embed classes: each prompt in every template, normalised, averaged, normalised.

    A class with several prompts gets the normalised mean of theirs.

    Args:
        encoder: the text tower.
        classes: C classes.
        templates: see :func:`load_templates`.
        cache: of the embeddings of prompts; new ones are added to it.

    Returns:
        [C, D] float32 of length 1, on the encoder's device.

    Raises:
        ClassListError: a prompt has more tokens than the text tower reads.
        SettingsError: there is no list of templates of that name.
    """
    import torch
    import torch.nn.functional as F

    forms = load_templates(templates)
    prompts = list(dict.fromkeys(prompt for item in classes for prompt in item.prompts))
    known: dict[str, Tensor] = {}
    if cache is not None:
        known = cache.get(encoder.text_fingerprint(), forms, prompts)
    new = [prompt for prompt in prompts if prompt not in known]
    if new:
        started = time.perf_counter()
        texts = [form.format(prompt) for prompt in new for form in forms]
        embedded = encoder.encode_texts(texts).reshape(len(new), len(forms), -1)
        means = F.normalize(embedded.mean(1), dim=-1).cpu()
        fresh = dict(zip(new, means, strict=True))
        if cache is not None:
            cache.put(encoder.text_fingerprint(), forms, fresh)
        known = {**known, **fresh}
        _LOG.info("%d texts encoded in %.2f s", len(texts), time.perf_counter() - started)
    rows = [torch.stack([known[p] for p in item.prompts]).mean(0) for item in classes]
    return F.normalize(torch.stack(rows), dim=-1).to(encoder.device)


def encode_background(
    encoder: Encoder,
    background: Classes | None,
    classes: Sequence[ClassPrompt],
    foreground: Tensor,
    settings: Settings,
    cache: TextEmbeddingCache | None = None,
) -> tuple[list[ClassPrompt], Tensor]:
    """Background names and their embeddings; for ``"auto"`` the names are chosen for the classes.

    A name that means the same as a class would take its pixels: ``ocean`` those of ``sea``. It is dropped if its
    cosine to a class is at least ``settings.background_similarity``. Of the others, ``settings.background_count``
    are chosen by :func:`.facility_location`; if that is 0, all of the short list of scene words.

    Args:
        encoder: the text tower. With a ``background_count`` it embeds up to 261 names in every template, unless they
            are in the cache.
        background: as for :func:`background_classes`.
        classes: C classes.
        foreground: [C, D], their embeddings.
        settings: for ``templates``, ``background_similarity`` and ``background_count``.
        cache: as for :func:`encode_classes`.

    Returns:
        B names, B may be 0, and [B, D] float32 of length 1.

    Raises:
        ClassListError: as for :func:`encode_classes`; or one class without background names, which would be the
            whole image.
    """
    from cliper.ops.facility_location import facility_location

    count = settings.background_count
    names = background_classes(background, classes, lexicon=count > 0)
    embedded = encode_classes(encoder, names, settings.templates, cache) if names else foreground[:0]
    if _keyword(background) == "auto":
        kept = ((embedded @ foreground.T).amax(1) < settings.background_similarity).nonzero().flatten()
        if count:
            kept = kept[facility_location(embedded[kept], count)]
        names, embedded = [names[index] for index in kept.tolist()], embedded[kept]
        _LOG.info("background: %s", "; ".join(item.name for item in names) or "none")
    if not names and len(classes) == 1:
        raise ClassListError(
            f"one class without background names would cover the whole image: {_short(classes[0].name)}; add a class, "
            'or name the background, or let it be "auto"'
        )
    return names, embedded


def _keyword(background: Classes | None) -> str | None:
    if not isinstance(background, Iterable):
        return None
    names = [background] if isinstance(background, str) else background
    return background_keyword([name for name in names if isinstance(name, str)], "background")


def _entry(text: str, what: str) -> ClassPrompt:
    name, colon, rest = (part.strip() for part in text.partition(":"))
    if not colon:
        return ClassPrompt(name, (name,))
    prompts = tuple(part.strip() for part in rest.split(",") if part.strip())
    if not name or not prompts:
        raise ClassListError(f"expected a {what} as 'name' or 'name: prompt, other prompt', got {_short(text.strip())}")
    return ClassPrompt(name, prompts)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


@cache
def _templates() -> dict[str, tuple[str, ...]]:
    text = (resources.files("cliper") / "assets" / "templates.yaml").read_text(encoding="utf-8")
    return {name: tuple(forms) for name, forms in yaml.safe_load(text).items()}


@cache
def _read_names(file: str) -> tuple[str, ...]:
    """Names of a text file in ``assets``, one a line; ``#`` begins a comment."""
    text = (resources.files("cliper") / "assets" / file).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))
