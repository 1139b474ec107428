"""From what a person types to text embeddings: class lists, templates, background names.

Source: ``docs/method.md``, section 1, "Text".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from cliper.errors import ClassListError, SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from cliper.cache import TextEmbeddingCache
    from cliper.encoders.base import Encoder

__all__ = [
    "ClassPrompt",
    "encode_classes",
    "load_templates",
    "parse_classes",
    "read_classes",
    "scene_background",
    "template_names",
]


@dataclass(frozen=True)
class ClassPrompt:
    """A class: what it is called, and the texts it is recognised by.

    Args:
        name: what legends and results say.
        prompts: one text or several (synonyms); the class's embedding is their mean.

    Raises:
        ClassListError: a blank name, no prompts, or a text that is not Unicode.
    """

    name: str
    prompts: tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.prompts, str) or not self.prompts:
            raise ClassListError(f"expected at least one prompt, as a tuple of texts, got {self.prompts!r}")
        for text in (self.name, *self.prompts):
            if not isinstance(text, str) or not text.strip():
                raise ClassListError(f"expected names and prompts that are not blank, got {text!r}")
            try:
                text.encode()
            except UnicodeEncodeError:  # how the command line hands over bytes that are not UTF-8
                raise ClassListError(f"expected a name in UTF-8, got {_short(text)}") from None


def parse_classes(source: str | Iterable[str | ClassPrompt], *, what: str = "class") -> list[ClassPrompt]:
    """Read a class list.

    Args:
        source: ``"dog; grass; wooden bench"``, or several such texts, or prompts made already. An entry
            ``"person: man, woman"`` is the class ``person``, recognised by either text; without a colon
            the entry is one text, commas and all.
        what: what an entry is called in messages.

    Returns:
        At least one class.

    Raises:
        ClassListError: no class, a blank one, one given twice (upper and lower case are the same), or a
            colon with no text on one of its sides.

    Example:
        >>> [c.name for c in parse_classes("dog; person: man, woman")]
        ['dog', 'person']
    """
    if not isinstance(source, Iterable):
        raise ClassListError(f'expected {what} names, got {source!r}; give names such as "dog; grass"')
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
            raise ClassListError(f"expected {what} names, got a blank one; take it out")
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


def read_classes(path: str | Path) -> list[ClassPrompt]:
    """Read a class file: UTF-8, one class a line (``name`` or ``name: prompt, other prompt``).

    Blank lines and lines that begin with ``#`` are passed over.

    Raises:
        ClassListError: a file that cannot be read, or a list that :func:`parse_classes` refuses.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ClassListError(f"{path}: expected a class file in UTF-8, got other bytes; save it as UTF-8") from None
    except (OSError, ValueError, RuntimeError) as error:  # a null character in its name, a home that is not there
        reason = getattr(error, "strerror", None) or error
        raise ClassListError(f"{path}: could not read the class file: {reason}") from None
    if "\0" in text:
        raise ClassListError(f"{path}: expected a class file in UTF-8, got null characters; save it as UTF-8")
    lines = [line.strip() for line in text.splitlines()]
    entries = [line for line in lines if line and not line.startswith("#")]
    try:
        return parse_classes([_entry(line, "class") for line in entries])
    except ClassListError as error:
        raise ClassListError(f"{path}: {error}") from None


def scene_background(classes: Sequence[ClassPrompt]) -> list[ClassPrompt]:
    """The built-in scene words, less those that any class's name or prompts contain (in either number)."""
    taken = {
        form
        for item in classes
        for text in (item.name, *item.prompts)
        for word in re.findall(r"\w+", text.casefold())
        for form in (word, word.removesuffix("s"), word.removesuffix("es"))
    }
    return [ClassPrompt(word, (word,)) for word in _scene_words() if word not in taken]


def template_names() -> list[str]:
    """Names of the built-in lists of templates."""
    return sorted(_templates())


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
        cache: where prompts embedded before are found, and new ones are put.

    Returns:
        [C, D] float32 of length 1, on the encoder's device.

    Raises:
        ClassListError: a prompt that is longer than the tower can read.
        SettingsError: unknown templates.
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
        texts = [form.format(prompt) for prompt in new for form in forms]
        embedded = encoder.encode_texts(texts).reshape(len(new), len(forms), -1)
        means = F.normalize(embedded.mean(1), dim=-1).cpu()
        fresh = dict(zip(new, means, strict=True))
        if cache is not None:
            cache.put(encoder.text_fingerprint(), forms, fresh)
        known = {**known, **fresh}
    rows = [torch.stack([known[p] for p in item.prompts]).mean(0) for item in classes]
    return F.normalize(torch.stack(rows), dim=-1).to(encoder.device)


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
def _scene_words() -> tuple[str, ...]:
    text = (resources.files("cliper") / "assets" / "scene_words.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))
