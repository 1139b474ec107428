"""The tokenizers of ``examples/onnx_segment.py`` and ``examples/browser`` beside the package's."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from cliper.checkpoints import resolve
from cliper.encoders.tokenizer import load_tokenizer

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXTS = (
    *(
        "",
        "DON'T",
        "it\u2019s",
        "naïve",
        "cafe\u0301",
        "snake_case_",
        "a1b22",
        "中文",
        "\U0001f468\u200d\U0001f469",
        "$&",
        "{}",
    ),
    *(
        "ΣΟΦΟΣ",
        "30 m² of land",
        "½ cup",
        "Ⅷ",
        "①",
        "१२",
        "İstanbul",
        "Straße",
        "a\u00a0b\u2028c",
        "\ufeffdog",
        "a\x85b",
    ),
)


@pytest.fixture(scope="module")
def expected() -> tuple[dict[str, Any], list[list[int]]]:
    tokenizer = load_tokenizer(resolve("mini", "clip").folder)
    return json.loads(tokenizer.to_str()), [tokenizer.encode(text).ids for text in TEXTS]


def test_tokens_of_the_onnx_example(expected: tuple[dict[str, Any], list[list[int]]]) -> None:
    tokenizer, ids = expected
    source = (EXAMPLES / "onnx_segment.py").read_text("utf-8")
    start, end = ids[0]
    names: dict[str, Any] = {"itertools": itertools, "re": re, "unicodedata": unicodedata}
    names |= {"tokenizer": tokenizer, "text": {"start": start, "end": end}}
    exec(source[source.index("RANKS =") : source.index("def embed")], names)
    assert [names["tokenize"](text) for text in TEXTS] == ids


@pytest.mark.skipif(shutil.which("node") is None, reason="no node")
def test_tokens_of_the_page(expected: tuple[dict[str, Any], list[list[int]]], tmp_path: Path) -> None:
    tokenizer, ids = expected
    shutil.copy(EXAMPLES / "browser" / "tokenizer.js", tmp_path / "tokenizer.mjs")
    (tmp_path / "input.json").write_text(json.dumps([tokenizer, *ids[0], TEXTS]))
    (tmp_path / "run.mjs").write_text(
        'import { readFileSync } from "node:fs";\n'
        'import { Tokenizer } from "./tokenizer.mjs";\n'
        'const [json, start, end, texts] = JSON.parse(readFileSync("input.json"));\n'
        "const tokenizer = new Tokenizer(json, start, end);\n"
        "console.log(JSON.stringify(texts.map((text) => tokenizer.encode(text))));\n"
    )
    done = subprocess.run(["node", "run.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ids
