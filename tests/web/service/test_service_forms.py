"""Forms that try to be more than they are: values that close the JSON around them, and endless headers."""

from __future__ import annotations

from typing import Any

import pytest

PART = b'Content-Disposition: form-data; name="classes"'


def post(service: Any, body: bytes) -> Any:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return service.client.post("/v1/segment", content=body, headers=headers)


def form(*headers: bytes) -> bytes:
    return b"--b\r\n" + b"\r\n".join(headers) + b"\r\n\r\ncat\r\n--b--\r\n"


@pytest.mark.parametrize("text", ['1, "value": 3', "1 2", "", "[1", "1}", "NaN", "1e999", '{"a": 1}}'])
@pytest.mark.parametrize("name", ["tolerance", "settings"])
def test_a_field_is_one_value_of_json(usual: Any, picture_file: bytes, name: str, text: str) -> None:
    answered = usual.client.post(
        "/v1/segment", files={"image": picture_file, "classes": (None, "cat"), name: (None, text)}
    )
    assert answered.status_code == 400
    assert answered.json()["error"].startswith(f"{name}: expected JSON")


def test_headers_of_a_part_are_few_and_short(usual: Any) -> None:
    """What the parser would collect before it knows what a part is."""
    few = [b"X-A: b"] * 7
    assert "image" in post(usual, form(PART, *few)).json()["error"]  # as far as that there is no picture
    for body in (form(PART, *few, b"X-A: b"), form(PART, b"X-A: " + b"b" * 5000), form(PART, b"X" * 5000 + b": b")):
        answered = post(usual, body)
        assert answered.status_code == 400
        assert "multipart/form-data" in answered.json()["error"]
