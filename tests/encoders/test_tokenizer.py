"""CLIP's tokenizer beside that of transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from cliper.encoders.tokenizer import load_tokenizer
from cliper.errors import CheckpointError

MINI = Path(__file__).parents[2] / "src" / "cliper" / "checkpoints" / "mini"
SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def as_one_file(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MINI / name, folder)


def as_vocabulary_and_merges(folder: Path) -> None:
    """As OpenAI and OpenCLIP publish it."""
    model = json.loads((MINI / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    shutil.copy(MINI / "tokenizer_config.json", folder)


def as_file_of_another_normaliser(folder: Path) -> None:
    as_one_file(folder)
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["normalizer"] = None
    data["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(data), encoding="utf-8")


def as_file_of_other_names(folder: Path) -> None:
    """With names of special tokens as objects, and a padding token that is also a word."""
    as_one_file(folder)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
    token = {"__type": "AddedToken", "content": "<|endoftext|>", **flags}
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"eos_token": token, "pad_token": "!"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


FORMS = [as_one_file, as_vocabulary_and_merges, as_file_of_another_normaliser, as_file_of_other_names]


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: form.__name__)
def tokenizers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The package's and that of transformers, from the same files."""
    folder = tmp_path_factory.mktemp("tokenizer")
    request.param(folder)
    return load_tokenizer(folder), CLIPTokenizer.from_pretrained(folder)


PIECES = [*SPECIAL, "<|ENDOFTEXT|>", "don't", "I'LL", "  ", "\t\n", "!", "12", "dog", "\ufb01", "\u2028", "e\u0301"]
mixed = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4))).map("".join)
texts = st.one_of(st.text(), mixed, st.text().map(lambda text: text * 50))


@given(texts)
@example("A photo of a DOG's bed!")
@example("naïve, 犬 🐕‍🦺 ½ ²")
@example("word " * 200)
@example("İstanbul ΑΣ")
def test_token_ids_equal_those_of_transformers(tokenizers: tuple[Any, Any], text: str) -> None:
    own, theirs = tokenizers
    assert own.encode(text).ids == theirs(text)["input_ids"]


def test_text_is_between_start_and_end_token_without_padding(tokenizers: tuple[Any, Any]) -> None:
    own, _ = tokenizers
    short, long = (encoding.ids for encoding in own.encode_batch(["dog", "dog " * 100]))
    assert (len(short), len(long)) == (3, 102)
    assert [own.id_to_token(ids[end]) for ids in (short, long) for end in (0, -1)] == [*SPECIAL] * 2


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected a tokenizer \(tokenizer.json, or vocab.json and merges.txt\)"):
        load_tokenizer(tmp_path)
    for name, content in (("vocab.json", "{}"), ("tokenizer.json", "{"), ("tokenizer.json", '{"version": "1.0"}')):
        (tmp_path / name).write_text(content)
        with pytest.raises(CheckpointError, match="could not read the tokenizer: ") as caught:
            load_tokenizer(tmp_path)
        assert "\n" not in str(caught.value)
