"""What the service refuses: each time one line, and nothing was computed for it."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from cliper.errors import InputError
from cliper.segmenter import Segmenter
from cliper.web.service.limits import Limits


def refused(answered: Any, status: int, *words: str) -> None:
    assert answered.status_code == status, answered.text
    assert answered.headers["content-type"] == "application/json"
    told = answered.json()
    assert set(told) == {"error"}
    assert "\n" not in told["error"]
    for word in words:
        assert word in told["error"]


def _asked(*_: object) -> None:
    raise AssertionError("the model was asked")


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks the model fails."""
    monkeypatch.setattr(Segmenter, "__call__", _asked)


pytestmark = pytest.mark.usefixtures("no_model")


def header_of(width: int, height: int) -> bytes:
    """A PNG that says to be so large, with a few bytes of zeros that grow to many."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**7), 9))
        + chunk(b"IEND", b"")
    )


# --- sizes -----------------------------------------------------------------------------------------------


def test_a_body_too_large_by_its_header(start: Any) -> None:
    service = start(megabytes=0.1)
    refused(service.segment(bytes(100_000)), 413, "at most 0.1 MB")
    refused(service.client.post("/predict", json={"tasks": ["x" * 100_000]}), 413)


def test_a_body_too_large_without_a_header_is_read_no_further(start: Any) -> None:
    service = start(megabytes=0.1)
    sent = 0

    def endless() -> Any:
        nonlocal sent
        while sent < 50_000_000:
            sent += 10_000
            yield bytes(10_000)

    answered = service.client.post("/v1/segment", content=endless(), headers={"Content-Type": "application/json"})
    refused(answered, 413)


def test_a_bomb_is_known_by_its_header(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import PngImagePlugin

    service = start(megapixels=1)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda *_: pytest.fail("it was decoded"))
    refused(service.segment(header_of(50_000, 50_000)), 422, "megapixels", "50000x50000")
    refused(service.segment(header_of(1001, 1000)), 422, "megapixels")


def test_pictures_that_are_none(usual: Any, picture_file: bytes) -> None:
    refused(usual.segment(b""), 422, "0 bytes")
    refused(usual.segment(b"hello"), 422, "expected a picture")
    refused(usual.segment(picture_file[: len(picture_file) // 2]), 422, "truncated")


def test_many_classes(start: Any, picture_file: bytes) -> None:
    service = start(classes=20)
    names = [f"t{number}" for number in range(10_000)]
    for classes in (names, "; ".join(names), names[:21], "; ".join(names[:21])):
        refused(service.segment(picture_file, classes), 422, "at most 20 class entries")
        refused(service.segment(picture_file, ["cat"], background=classes), 422, "at most 20 background name entries")
    refused(service.segment(picture_file, ["cat: " + ", ".join(names)] * 2), 422, "characters in all")


def test_many_texts(start: Any, picture_file: bytes) -> None:
    service = start(texts=50)
    refused(service.segment(picture_file, ["cat"], settings={"templates": "imagenet80"}), 422, "at most 50 texts")
    refused(service.segment(picture_file, "cat: " + ", ".join(f"c{n}" for n in range(60)), background=[]), 422, "texts")
    refused(service.segment(picture_file, "x" * 501), 422, "500 characters")


def test_work_that_would_take_long(start: Any, picture_file: bytes) -> None:
    service = start(patches=100)
    refused(service.segment(picture_file, settings={"size": 4096}), 422, "at most 100 patches", "98304")
    strip = io.BytesIO()
    Image.new("RGB", (2000, 2)).save(strip, "PNG")
    refused(service.segment(strip.getvalue()), 422, "patches")
    # 96 x 64 pixels at size 128 are 96 patches; the windows make it more.
    refused(service.segment(picture_file, settings={"size": 128, "window": 112}), 422, "window 112 make")
    refused(service.segment(picture_file, settings={"size": 128, "window": 16}), 422, "at least 112")


def test_limits_have_bounds() -> None:
    for name in Limits.__dataclass_fields__:
        for value in (0, -1, 1e12, float("nan")):
            with pytest.raises(InputError, match=name):
                Limits(**{name: value})


# --- forms of a request ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "image/png", "application/x-www-form-urlencoded", "\xff;;=", "a" * 5000]
)
def test_other_kinds_of_body(usual: Any, kind: str) -> None:
    headers = {"Content-Type": kind.encode("latin-1")} if kind else {}
    refused(usual.client.post("/v1/segment", content=b"x", headers=headers), 415)


def test_compressed_bodies_are_not_unpacked(usual: Any) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    refused(usual.client.post("/v1/segment", content=b"x", headers=headers), 415, "Content-Encoding")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
    ],
    ids=lambda text: ascii(text)[:20],
)
@pytest.mark.parametrize("path", ["/v1/segment", "/predict", "/setup"])
def test_what_is_no_json(usual: Any, path: str, text: bytes) -> None:
    refused(usual.client.post(path, content=text, headers={"Content-Type": "application/json"}), 400, "JSON")


@pytest.mark.parametrize("text", ["?", "aGk", "aGk=\n", "aG k=", "a", "ä", "=", "aGk=aGk=", "\ud800"])
def test_wrong_base64(usual: Any, text: str) -> None:
    content = json.dumps({"image": text, "classes": ["cat"]})
    answered = usual.client.post("/v1/segment", content=content, headers={"Content-Type": "application/json"})
    refused(answered, 400, "image: expected base64")


WRONG_VALUES: list[dict[str, Any]] = [
    {"classes": []},
    {"classes": ""},
    {"classes": " ; "},
    {"classes": ["cat", ""]},
    {"classes": ["cat", "Cat"]},
    {"classes": [1]},
    {"classes": {"a": 1}},
    {"classes": None},
    {"classes": "\ud800"},
    {"classes": "cat:"},
    {"classes": "word " * 90},
    {"background": ["auto", "sky"]},
    {"background": 3},
    {"format": "tiff"},
    {"tolerance": -1},
    {"tolerance": "1"},
    {"model": 1},
    {"colour": "red"},
    {"colour\ud800": "red"},
    {"settings": {"size": 0}},
    {"settings": {"size": 48.5}},
    {"settings": {"size": True}},
    {"settings": {"size": "48"}},
    {"settings": {"treshold": 0.1}},
    {"settings": {"threshold": 1.1}},
    {"settings": {"select_layer": 900}},
    {"settings": {"window": 113}},
    {"settings": {"templates": ["{}{}"]}},
    {"settings": {"templates": ["{0.__class__}"]}},
    {"settings": {"templates": ["a {}"] * 17}},
    {"settings": {"templates": "my.yaml"}},
    {"settings": []},
    {"image": None},
    {"image": 3},
]


@pytest.mark.parametrize("values", WRONG_VALUES, ids=lambda values: ascii(values)[:40])
def test_wrong_values(usual: Any, picture_file: bytes, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if values == {"classes": "word " * 90}:
        monkeypatch.undo()  # how long a text may be is known by the tokenizer alone, which is the model's
    body = {"image": base64.b64encode(picture_file).decode(), "classes": ["cat"], **values}
    headers = {"Content-Type": "application/json"}
    refused(usual.client.post("/v1/segment", content=json.dumps(body), headers=headers), 422)


def test_not_a_number_in_a_form(usual: Any, picture_file: bytes) -> None:
    for settings in ('{"threshold": NaN}', '{"threshold": 1e999}', "{", "\x00"):
        fields = {"classes": "cat", "settings": settings}
        refused(usual.client.post("/v1/segment", data=fields, files={"image": picture_file}), 400, "JSON")
    for settings in ("3", "[]", '{"threshold": "0.1"}'):
        fields = {"classes": "cat", "settings": settings}
        refused(usual.client.post("/v1/segment", data=fields, files={"image": picture_file}), 422, "settings")


def test_forms_that_are_wrong(usual: Any, picture_file: bytes) -> None:
    post, kind = usual.client.post, {"Content-Type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    end, classes, image = b"--b--\r\n", part % (b"classes", b"cat"), part % (b"image", picture_file)

    def form(*parts: bytes) -> Any:
        return post("/v1/segment", content=b"".join(parts), headers=kind)

    refused(form(classes, end), 422, "image")
    refused(form(image, end), 422, "classes")
    refused(form(classes, image), 400, "broken off")
    refused(form(classes, image, image, end), 400, "two")
    refused(form(classes, image, part % (b"format", b"rle"), part % (b"format", b"png"), end), 400, "two")
    refused(form(part % (b"classes", b"\xff\xfe"), image, end), 400, "UTF-8")
    refused(form(b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n", end), 400, "name")
    refused(form(b"--b\r\nno header\r\n\r\nx\r\n", end), 400)
    refused(form(part % (b"x", b"") * 3000, end), 400, "parts")
    refused(form(b"nothing of the kind"), 400)
    refused(form(), 400)
    nameless = {"Content-Type": "multipart/form-data"}
    refused(post("/v1/segment", content=b"x", headers=nameless), 400, "boundary")
    long = {"Content-Type": f"multipart/form-data; boundary={'b' * 1000}"}
    refused(post("/v1/segment", content=b"x", headers=long), 400)


def test_no_path_or_address_is_opened(usual: Any, picture_file: bytes, tmp_path: Any) -> None:
    lies = tmp_path / "secret.png"
    lies.write_bytes(picture_file)
    for address in (str(lies), lies.as_uri(), "http://127.0.0.1:1/a.png"):
        answered = usual.client.post("/v1/segment", json={"image": address, "classes": ["cat"]})
        refused(answered, 400, "base64")
        files = {"classes": (None, "cat"), "image": (None, address)}
        sent = usual.client.post("/v1/segment", files=files)
        refused(sent, 422, "expected a picture")


# --- who may ask -----------------------------------------------------------------------------------------


def test_token(start: Any, monkeypatch: pytest.MonkeyPatch, picture_file: bytes) -> None:
    monkeypatch.undo()
    service = start(token="secret")
    for path in ("/v1/models", "/metrics", "/health"):
        answered = service.client.get(path)
        refused(answered, 401, "Authorization")
        assert "Bearer" in answered.headers["www-authenticate"]
    for path in ("/v1/segment", "/predict", "/setup"):
        refused(service.client.post(path, content=b"x"), 401)
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert service.client.get(path).status_code == 200
    password = base64.b64encode(b"anyone:secret").decode()
    right = ("Bearer secret", "bearer secret", f"Basic {password}")
    wrong = (
        "secret",
        "Bearer",
        "Bearer ",
        "Bearer Secret",
        "Bearer secret2",
        "Basic secret",
        "Basic ====",
        "Basic \xff",
    )
    for header in right:
        assert service.client.get("/v1/models", headers={"Authorization": header}).status_code == 200
    for header in wrong:
        refused(service.client.get("/v1/models", headers={"Authorization": header.encode("latin-1")}), 401)
    service.client.headers["Authorization"] = right[0]
    assert service.segment(picture_file).status_code == 200
    assert "secret" not in service.client.get("/metrics").text


def test_an_open_service_takes_whatever_header(usual: Any) -> None:
    assert usual.client.get("/v1/models", headers={"Authorization": "Bearer x"}).status_code == 200


def test_a_body_of_many_wrong_entries_is_refused_before_each_gets_a_message(usual: Any) -> None:
    many = {str(n): 0 for n in range(30_000)}
    for body in ({"classes": [0] * 30_000}, many, {"settings": many}):
        answer = usual.client.post("/v1/segment", json={"image": "", **body})
        assert answer.status_code == 422
        assert "expected at most 20000 entries" in answer.json()["error"]
