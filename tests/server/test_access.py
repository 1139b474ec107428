"""The listening socket, the token, and the check of Host and Origin."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from server_in_process import refused

from cliper.errors import InputError
from cliper.server.access import is_loopback, listen


def test_loopback_hosts() -> None:
    for host in ("127.0.0.1", "127.255.255.254", "::1", "[::1]", "0:0:0:0:0:0:0:1", "localhost", "LOCALHOST"):
        assert is_loopback(host), host
    others = """0.0.0.0 :: 10.0.0.1 128.0.0.1 ::2 127.example.com localhost.example.com 127.0.0.1.nip.io 127.0.0.256
    127.0.0 0127.0.0.1 127.0.0.1:80 http://127.0.0.1 ["""
    assert not [host for host in others.split() if is_loopback(host)]


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.enable_socket
def test_taken_port_and_address_of_another_machine_are_refused() -> None:
    with listen("127.0.0.1", 0) as listening:
        host, port = listening.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(InputError, match=rf"cannot listen at 127\.0\.0\.1 port {port}: .*choose another"):
            listen("127.0.0.1", port)
    for other in ("203.0.113.1", "a" * 300):
        with pytest.raises(InputError, match="cannot listen at"):
            listen(other, 0)


def test_requests_of_other_sites_are_refused(start: Any) -> None:
    server = start(loopback_only=True, origins=("https://example.org",))
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert server.client.get("/healthz", headers={"Host": host}).status_code == 200
    for host in ("evil.example:8000", "127.0.0.1.evil.example", "", "[", "testserver"):
        refused(server.client.get("/healthz", headers={"Host": host}), 403, "Host")
    post = {"json": {"classes": 1}}
    for origin in ("http://localhost:8000", "https://example.org"):
        headers = {"Host": "localhost:8000", "Origin": origin}
        assert server.client.post("/v1/segment", headers=headers, **post).status_code == 422
    for origin in ("http://evil.example", "null", "http://localhost:9000"):
        headers = {"Host": "localhost:8000", "Origin": origin}
        refused(server.client.post("/v1/segment", headers=headers, **post), 403, "another site")
    proxied = {"Host": "127.0.0.1:8000", "X-Forwarded-Host": "maps.example", "Origin": "https://maps.example"}
    assert server.client.post("/v1/segment", headers=proxied, **post).status_code == 422


def test_preflight_of_an_allowed_origin(start: Any) -> None:
    server = start(origins=("https://example.org",), token="secret")
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    allowed = server.client.options("/v1/segment", headers={"Origin": "https://example.org", **asked})
    assert allowed.headers["access-control-allow-origin"] == "https://example.org"
    denied = server.client.options("/v1/segment", headers={"Origin": "https://evil.example", **asked})
    assert "access-control-allow-origin" not in denied.headers


def test_every_response_has_a_content_security_policy(usual: Any) -> None:
    for path in ("/", "/static/main.js", "/v1/models", "/nothing"):
        policy = usual.client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_token(start: Any, image_file: bytes) -> None:
    server = start(token="secret")
    for path in ("/v1/models", "/metrics", "/health"):
        response = server.client.get(path)
        refused(response, 401, "Authorization")
        assert response.headers["www-authenticate"].split()[0] == "Bearer"
        assert "Basic" not in response.headers["www-authenticate"]  # a browser would ask before the page does
    for path in ("/v1/segment", "/v1/export", "/v1/predict", "/predict", "/setup"):
        refused(server.client.post(path, content=b"x"), 401)
    for path in ("/", "/healthz", "/openapi.json"):
        assert server.client.get(path).status_code == 200
    password = base64.b64encode(b"anyone:secret").decode()
    for header in ("Bearer secret", "bearer secret", f"Basic {password}"):
        assert server.client.get("/v1/models", headers={"Authorization": header}).status_code == 200
    assert server.client.get("/v1/models", headers={"Token": "secret"}).status_code == 200
    for header in ("secret", "Bearer", "Bearer ", "Bearer Secret", "Bearer secret2", "Basic secret", "Basic \xff"):
        refused(server.client.get("/v1/models", headers={"Authorization": header.encode("latin-1")}), 401)
    server.client.headers["Authorization"] = "Bearer secret"
    assert server.segment(image_file).status_code == 200
    assert "secret" not in server.client.get("/metrics").text
