"""Authentication by token."""

from __future__ import annotations

import base64
from typing import Any

from server_in_process import refused


def test_token(start: Any, image_file: bytes) -> None:
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
    assert service.segment(image_file).status_code == 200
    assert "secret" not in service.client.get("/metrics").text


def test_server_without_token_ignores_credentials(usual: Any) -> None:
    assert usual.client.get("/v1/models", headers={"Authorization": "Bearer x"}).status_code == 200
