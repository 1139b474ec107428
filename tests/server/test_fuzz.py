"""Random bytes get a response with a reason, and the server continues."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from server_in_process import Running

pytestmark = pytest.mark.full

REFUSED = {400, 413, 415, 422}

fuzz = settings(
    max_examples=200,
    deadline=None,  # a busy machine may take any time for one; what hangs is ended by in_time
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

FORM = "multipart/form-data; boundary=edge"


def form(image: bytes) -> bytes:
    part = b'--edge\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    return b"".join(
        [
            part % (b"classes", b"cat; dog"),
            part % (b"settings", b'{"size": 32}'),
            b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n',
            b"Content-Type: image/png\r\n\r\n",
            image,
            b"\r\n--edge--\r\n",
        ]
    )


@pytest.fixture(scope="session")
def small_file() -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def post(usual: Running, in_time: Callable[[], AbstractContextManager[None]]) -> Callable[..., Any]:
    """Send a body; the response is good or has a reason."""

    def ask(body: bytes, kind: str, path: str = "/v1/segment") -> Any:
        with in_time():
            response = usual.client.post(path, content=body, headers={"Content-Type": kind})
        assert response.status_code in REFUSED | {200}, (response.status_code, response.text)
        assert response.status_code == 200 or set(response.json()) == {"error"}
        return response

    return ask


def test_truncated_form(usual: Running, post: Any, small_file: bytes) -> None:
    """Its text and image are whole or missing, wherever it ends."""
    whole = form(small_file)
    assert post(whole, FORM).status_code == 200
    for length in range(0, len(whole) - 8, 3):
        assert post(whole[:length], FORM).status_code in (400, 422), length
    assert usual.service.in_flight == 0


@fuzz
@given(data=st.data())
def test_form_with_changed_bytes(post: Any, small_file: bytes, data: st.DataObject) -> None:
    whole = bytearray(form(small_file))
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    post(bytes(whole), FORM)


@fuzz
@given(body=st.binary(max_size=300), kind=st.sampled_from([FORM, "application/json", "multipart/form-data; boundary="]))
def test_any_bytes(post: Any, body: bytes, kind: str) -> None:
    for path in ("/v1/segment", "/predict", "/setup"):
        assert post(body, kind, path).status_code in REFUSED


@fuzz
@given(
    data=st.data(),
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF"]),
)
def test_damaged_images(post: Any, data: st.DataObject, kind: str) -> None:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(stream, kind)
    damaged = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(len(damaged) // 2, len(damaged)))]
    body = {"image": base64.b64encode(damaged).decode(), "classes": "cat", "background": [], "settings": {"size": 32}}
    post(json.dumps(body).encode(), "application/json")
