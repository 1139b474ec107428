"""Invalid requests get one line that says why, and the model does not run."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from server_in_process import png, refused

from hostile_images import gif_comment

pytestmark = pytest.mark.usefixtures("no_model")


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "image/png", "application/x-www-form-urlencoded", "\xff;;=", "a" * 5000]
)
def test_other_content_types(usual: Any, kind: str) -> None:
    headers = {"Content-Type": kind.encode("latin-1")} if kind else {}
    refused(usual.client.post("/v1/segment", content=b"x", headers=headers), 415)


JSON_TEXTS = [b"", b"{", b"[]", b"1", b"null", b"\xef\xbb\xbf{}", '{"a": 1}'.encode("utf-16"), b'{"a": "\xff"}']
JSON_TEXTS += [b'{"a": 1, "a": 2}', b'{"a": [{"b": 1, "b": 1}]}', b"[" * 100_000, b'{"a":' * 100_000]


@pytest.mark.parametrize("text", [*JSON_TEXTS, b'{"a": ' + b"9" * 10_000 + b"}"], ids=lambda text: ascii(text)[:20])
@pytest.mark.parametrize("path", ["/v1/segment", "/predict", "/setup"])
def test_invalid_json(usual: Any, path: str, text: bytes) -> None:
    refused(usual.client.post(path, content=text, headers={"Content-Type": "application/json"}), 400, "JSON")


@pytest.mark.parametrize("text", ["?", "aGk", "aGk=\n", "aG k=", "a", "ä", "=", "aGk=aGk=", "\ud800"])
def test_invalid_base64(usual: Any, text: str) -> None:
    content = json.dumps({"image": text, "classes": ["cat"]})
    response = usual.client.post("/v1/segment", content=content, headers={"Content-Type": "application/json"})
    refused(response, 422, "image: expected base64")


WRONG_VALUES: list[dict[str, Any]] = [
    *(
        {"classes": value}
        for value in ([], "", " ; ", ["cat", ""], ["cat", "Cat"], [1], {"a": 1}, None, "\ud800", "cat:")
    ),
    {"classes": "word " * 90},
    *({"background": value} for value in (["auto", "sky"], ["sky", "none"], 3)),
    *({"tolerance": value} for value in (-1, "1", float("nan"))),
    {"output": "tiff"},
    {"model": 1},
    {"colour": "red"},
    {"colour\ud800": "red"},
    *({"settings": {"size": value}} for value in (0, 48.5, True, "48")),
    *({"settings": {"map_threshold": value}} for value in (1.1, float("inf"))),
    *({"settings": {"templates": value}} for value in (["{}{}"], ["{0.__class__}"], ["a {}"] * 17, "my.yaml")),
    {"settings": {"treshold": 0.1}},
    {"settings": {"select_layer": 900}},
    {"settings": {"window": 113}},
    {"settings": {"attention": "proxy"}},
    {"settings": {"proxy_model": "dino-b8"}},
    {"settings": {"refine_size": 1024}},
    {"settings": {"refine_max_patches": 4097}},
    {"settings": {"refine_layers": ["up_blocks"]}},
    {"settings": []},
    {"image": None},
    {"image": 3},
]


@pytest.mark.parametrize("values", WRONG_VALUES, ids=lambda values: ascii(values)[:40])
def test_invalid_values(usual: Any, image_file: bytes, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if values == {"classes": "word " * 90}:
        monkeypatch.undo()  # how long a text may be is known by the tokenizer alone, which is the model's
    body = {"image": base64.b64encode(image_file).decode(), "classes": ["cat"], **values}
    headers = {"Content-Type": "application/json"}
    refused(usual.client.post("/v1/segment", content=json.dumps(body), headers=headers), 422)


def test_invalid_forms(usual: Any, image_file: bytes) -> None:
    post, kind = usual.client.post, {"Content-Type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    file = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="a.png"\r\n\r\n%s\r\n'
    end, classes, image = b"--b--\r\n", part % (b"classes", b"cat"), file % (b"image", image_file)

    def form(*parts: bytes) -> Any:
        return post("/v1/segment", content=b"".join(parts), headers=kind)

    for settings, status in ((b"{", 400), (b"\0", 400), (b"3", 422), (b"[]", 422), (b'{"map_threshold": "0.1"}', 422)):
        refused(form(classes, image, part % (b"settings", settings), end), status)
    refused(form(classes, end), 422, "image")
    refused(form(image, end), 422, "classes")
    refused(form(classes, image, image, end), 400, "Too many files")
    refused(form(part % (b"classes", b"\xe4"), image, end), 400, "classes", "UTF-8")
    refused(form(classes, file % (b"file", image_file), end), 422, "in the field image", "'file'")
    refused(form(classes, part % (b"image", image_file), end), 422, "expected one file")
    refused(form(classes, image, part % (b"output", b"rle"), part % (b"output", b"png"), end), 400, "two")
    refused(form(b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n", end), 400, "name")
    refused(form(b"--b\r\nno header\r\n\r\nx\r\n", end), 400)
    refused(form(part % (b"x", b"") * 3000, end), 400, "fields")
    refused(form(b"nothing of the kind"), 400)
    refused(form(), 422)
    nameless = {"Content-Type": "multipart/form-data"}
    refused(post("/v1/segment", content=b"x", headers=nameless), 400, "boundary")
    long = {"Content-Type": f"multipart/form-data; boundary={'b' * 1000}"}
    refused(post("/v1/segment", content=b"x", headers=long), 400)


def test_number_of_items_is_limited(usual: Any) -> None:
    many = {str(n): 0 for n in range(30_000)}
    for body, status in (({"classes": [0] * 30_000}, 422), (many, 400), ({"settings": many}, 400)):
        refused(usual.client.post("/v1/segment", json={"image": "", **body}), status)


def test_files_that_are_not_images(start: Any, image_file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(megapixels=1)
    refused(server.segment(b""), 422, "0 bytes")
    refused(server.segment(b"hello"), 422, "expected an image")
    refused(server.segment(image_file[: len(image_file) // 2]), 422, "truncated")
    refused(server.segment(gif_comment(0.2)), 422, "bytes of comments")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda *_: pytest.fail("it was decoded"))
    refused(server.segment(png(Image.new("RGB", (1001, 1000)))), 422, "megapixels", "1001x1000")


def test_number_of_classes_and_texts_is_limited(start: Any, image_file: bytes) -> None:
    server = start(classes=20, texts=50)
    names = [f"t{number}" for number in range(10_000)]
    for classes in (names, "; ".join(names), names[:21], "; ".join(names[:21])):
        refused(server.segment(image_file, classes), 422, "at most 20 class entries")
        refused(server.segment(image_file, ["cat"], background=classes), 422, "at most 20 background name entries")
    refused(server.segment(image_file, ["cat: " + ", ".join(names)] * 2), 422, "characters in all")
    refused(server.segment(image_file, ["cat"], settings={"templates": "imagenet80"}), 422, "at most 50 texts")
    refused(server.segment(image_file, "cat: " + ", ".join(f"c{n}" for n in range(60)), background=[]), 422, "texts")
    refused(server.segment(image_file, "x" * 501), 422, "500 characters")


def test_cost_of_an_image_is_limited(start: Any, image_file: bytes) -> None:
    # Of 96 x 64 pixels 1.6 classes; of their patches at size 128 there are 96, and the windows make it more.
    refused(start(pixel_classes=0.01).segment(image_file, "cat; dog"), 422, "0.01 megapixels times", "0.006144 times 2")
    server = start(patches=100)
    refused(server.segment(image_file, settings={"size": 4096}), 422, "at most 100 patches", "98304")
    refused(server.segment(png(Image.new("RGB", (2000, 2)))), 422, "patches")
    refused(server.segment(image_file, settings={"size": 112, "extra_sizes": [64], "window": 112}), 422, "[112, 64]")
    refused(server.segment(image_file, settings={"size": 128, "window": 16}), 422, "at least 112")
