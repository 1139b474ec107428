"""Damaged forms and damaged images get a response with a reason."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

pytestmark = pytest.mark.full

fuzz = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def form(image: bytes) -> bytes:
    part = b'--edge\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    values = ((b"classes", b"", b"cat; dog"), (b"settings", b"", b'{"size": 32}'), (b"image", b'; filename="a"', image))
    return b"".join(part % value for value in values) + b"--edge--\r\n"


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(stream, kind)
    return stream.getvalue()


def damaged(data: bytes, draw: st.DataObject) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 6))):
        place = draw.draw(st.integers(0, len(changed) - 1))
        changed[place : place + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=4))
    return bytes(changed[: draw.draw(st.integers(len(changed) // 2, len(changed)))])


def check(server: Any, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    response = server.client.post("/v1/segment", content=body, headers=headers)
    assert response.status_code in (200, 400, 422), (response.status_code, response.text)
    assert response.status_code == 200 or set(response.json()) == {"error"}


@fuzz
@given(draw=st.data())
def test_damaged_forms(usual: Any, draw: st.DataObject) -> None:
    check(usual, damaged(form(encoded("PNG")), draw))


@fuzz
@given(draw=st.data(), kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF"]))
def test_damaged_images(usual: Any, draw: st.DataObject, kind: str) -> None:
    check(usual, form(damaged(encoded(kind), draw)))
