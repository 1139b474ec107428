"""A visitor reaches the operator's model and aliases that are here, and nothing is fetched."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cliper.cache import SQLiteTextCache
from cliper.errors import CheckpointError, InputError
from cliper.prompts import load_templates, scene_background
from cliper.web.page.models import Models


def never(name: str) -> Any:
    raise AssertionError(f"{name} was loaded")


def test_the_operators_model_comes_first_and_without_its_folder(tiny: Any) -> None:
    models = Models(tiny, never)
    names = [offer.name for offer in models.models()]
    assert names[0] == Path(tiny.checkpoint.name).name
    assert "/" not in names[0]
    assert {"mini", "ViT-B/16"} <= set(names)
    assert models.get(names[0], "none").encoder is tiny.encoder
    assert models.get(names[0], "none") is models.start


def test_what_is_not_here_says_so_and_is_last(mini: Any) -> None:
    offers = Models(mini, never).models()
    assert [offer.here for offer in offers] == sorted((offer.here for offer in offers), reverse=True)
    assert [offer.label for offer in offers if not offer.here] == [
        f"{offer.name} (not on this machine)" for offer in offers if not offer.here
    ]
    refiners = Models(mini, never).refiners()
    assert [offer.name for offer in refiners][:2] == ["none", "self"]


def test_nothing_is_fetched_for_a_visitor(mini: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["cliper.checkpoints.resolve"]  # the package's own name is that of the function
    monkeypatch.setattr(module, "cached_folder", lambda source, kind: None)
    monkeypatch.setattr(module, "download_folder", never)
    models = Models(mini, never)
    for model, refiner in (("ViT-B/16", "none"), ("mini", "sd2.1"), ("mini", "dino-s8")):
        with pytest.raises(CheckpointError, match="cliper models fetch"):
            models.get(model, refiner)
    with pytest.raises(CheckpointError, match="cliper models fetch"):
        models.settings("ViT-B/16")


@pytest.mark.parametrize("name", ["/etc", "../mini", "openai/clip-vit-base-patch16", "", "sd2.1", "mini "])
def test_no_folder_and_no_hub_name_is_reached(mini: Any, name: str) -> None:
    models = Models(mini, never)
    for work in (lambda: models.get(name, "none"), lambda: models.settings(name)):
        with pytest.raises(InputError, match="model: expected one of"):
            work()
    if name != "sd2.1":
        with pytest.raises(InputError, match="refiner: expected one of"):
            models.get("mini", name)


def test_a_refiner_is_put_onto_the_encoder_that_is_loaded(mini: Any) -> None:
    refined = Models(mini, never).get("mini", "self")
    assert refined.encoder is mini.encoder
    assert refined.refiner.name == "self"
    assert mini.refiner is None


def test_few_stay_loaded(tiny: Any, mini: Any) -> None:
    loaded = []

    def load(name: str) -> Any:
        loaded.append(name)
        return mini

    models = Models(tiny, load, most=1)
    models.get("mini", "none")
    models.get("mini", "none")
    assert loaded == ["mini"]
    models.get("mini", "self")  # the encoder is taken from the other
    assert loaded == ["mini"]
    models.get(models.start_model, "self")
    assert not models.is_loaded("mini", "self")
    models.get("mini", "none")
    assert loaded == ["mini", "mini"]
    assert models.is_loaded(models.start_model, "none")


def test_two_who_ask_at_once_load_once(tiny: Any, mini: Any) -> None:
    loaded, both = [], threading.Barrier(2, timeout=60)

    def load(name: str) -> Any:
        loaded.append(name)
        return mini

    models = Models(tiny, load)
    got: list[Any] = []

    def ask() -> None:
        both.wait()
        got.append(models.get("mini", "none"))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got[0] is got[1]
    assert got[0].encoder is mini.encoder
    assert loaded == ["mini"]


def test_the_operators_refiner_is_offered_once(mini: Any) -> None:
    models = Models(mini.with_refiner("self"), never)
    assert [offer.name for offer in models.refiners()].count("self") == 1
    assert models.start_refiner == "self"
    assert models.get("mini", "none").refiner is None


def test_words_of_visitors_stay_in_memory(mini: Any, tiny: Any, tmp_path: Path) -> None:
    """The file on the disk holds what it held, and the built-in words; what it held is used."""
    disk = SQLiteTextCache(tmp_path / "texts.sqlite")
    start, other = (one.with_settings(one.settings) for one in (tiny, mini))
    start.cache = other.cache = disk
    start.encode_text(["zebra"])
    models = Models(start, lambda name: other)
    chosen = [
        models.start,
        models.get(models.start_model, "self"),
        models.get("mini", "none"),
        models.get("mini", "self"),
    ]

    def known(segmenter: Any, word: str) -> bool:
        forms = load_templates(segmenter.settings.templates)
        return word in disk.get(segmenter.encoder.text_fingerprint(), forms, [word])

    for segmenter in chosen:
        word = f"word {segmenter.checkpoint.name} {segmenter.refiner}"
        segmenter(np.zeros((64, 64, 3), np.uint8), [word, "zebra"])
        assert not known(segmenter, word)
        assert known(segmenter, scene_background([])[0].name)
    assert known(models.start, "zebra")
    assert start.cache is disk, "the operator's own segmenter is as it was"


def test_words_are_encoded_once_for_all_and_few_are_kept(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    run = tiny.encoder.encode_texts

    def encode(prompts: Any, *more: Any, **options: Any) -> Any:
        encoded.extend(prompts)
        return run(prompts, *more, **options)

    models = Models(tiny, never, texts=2)
    monkeypatch.setattr(tiny.encoder, "encode_texts", encode)
    for word in ("one", "two", "one", "two", "three", "one"):
        models.get(models.start_model, "self").encode_text([word])
    assert [text.split()[-1].rstrip(".") for text in encoded] == ["one", "two", "three", "one"]
