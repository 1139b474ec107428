"""The served model: its caches of encoded images and of text embeddings."""

from __future__ import annotations

import io
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from server_in_process import png
from server_process import wait_for

from cliper.cache import SQLiteTextCache
from cliper.prompts import load_templates
from cliper.segmenter import Segmenter
from cliper.server.models import Limits, ServedModel
from cliper.server.schemas import SegmentRequest

LONG = [f"thing {number}" for number in range(200)]
"""In one template more texts than a chunk."""


def test_second_request_for_an_image_runs_no_network_on_it(
    start: Any, own_tiny: Segmenter, image_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = own_tiny.with_refiner("self")
    server, count = start(segmenter), Counter[str]()
    for owner, name in ((type(segmenter.encoder), "encode_images"), (ServedModel, "decode")):
        real = getattr(owner, name)

        def counted(*given: Any, real: Any = real, name: str = name, **more: Any) -> Any:
            count[name] += 1
            return real(*given, **more)

        monkeypatch.setattr(owner, name, counted)
    first = server.segment(image_file, ["cat"])
    once = dict(count)
    assert set(once) == {"encode_images", "decode"}
    second = server.segment(image_file, ["dog"])
    unrefined = server.segment(image_file, ["cat"], refiner="none")
    assert dict(count) == once
    assert {one.status_code for one in (first, second, unrefined)} == {200}
    expected = segmenter(Image.open(io.BytesIO(image_file)), ["dog"])
    assert second.json()["classes"][0]["confidence"] == pytest.approx(float(expected.confidence[0]), rel=1e-5)
    server.segment(image_file, ["cat"], settings={"size": 48})  # other settings of the networks
    assert count["encode_images"] > once["encode_images"]


def test_encoded_images_are_bounded_in_bytes(tiny: Segmenter, make_image: Any) -> None:
    size = tiny.encode_image(make_image()).nbytes
    model = ServedModel(tiny, Limits(), cached_bytes=2 * size)
    for number in range(3):
        model.encoded.encode(bytes([number]), make_image(seed=number), tiny)
    assert [model.encoded.image(bytes([number])) is None for number in range(3)] == [True, False, False]


def test_long_list_is_encoded_in_chunks_while_its_client_waits(
    start: Any, image_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(seconds=2.0)
    real, end, chunks = Segmenter.encode_text, threading.Event(), []

    def slow(self: Segmenter, classes: Any) -> Any:
        chunks.append(len(classes))
        found = real(self, classes)
        end.wait(60)
        return found

    monkeypatch.setattr(Segmenter, "encode_text", slow)
    params = {"background": "none", "settings": {"templates": ["a {}."]}}
    assert server.segment(image_file, LONG, **params).status_code == 504
    end.set()
    wait_for(lambda: "cliper_dropped_total 1.0" in server.metrics)
    assert chunks == [128]
    assert server.service.model.texts.misses == 128
    response = server.segment(image_file, LONG, **params)
    assert (response.status_code, server.service.model.texts.misses) == (200, 200)  # only the others were encoded
    assert chunks == [128, 200]  # the second is the segmenter itself; a short rest is left to it


def test_texts_of_requests_are_not_stored_on_disk(own_tiny: Segmenter, tmp_path: Path) -> None:
    own_tiny.cache = SQLiteTextCache(tmp_path / "texts.sqlite")
    own_tiny.encode_text(["thing"])
    model = ServedModel(own_tiny, Limits())
    segmenter = model.prepare(SegmentRequest(image=png(Image.new("RGB", (64, 64))), classes="cat")).segmenter
    segmenter.encode_text(["thing", "a word of a request"])
    assert (model.texts.misses, model.texts.hits) == (1, 1)
    fingerprint, templates = own_tiny.encoder.text_fingerprint(), load_templates(own_tiny.settings.templates)
    known = SQLiteTextCache(tmp_path / "texts.sqlite").get(fingerprint, templates, ["thing", "a word of a request"])
    assert set(known) == {"thing"}
