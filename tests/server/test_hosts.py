"""Loopback hosts, listening sockets, and the check of Host and Origin."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import pytest
from server_in_process import refused

from cliper.errors import InputError
from cliper.server.hosts import allow_restart, is_loopback, listen


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.53",
        "127.255.255.254",
        "::1",
        "[::1]",
        "0:0:0:0:0:0:0:1",
        "localhost",
        "LOCALHOST",
        "LocalHost",
    ],
)
def test_loopback_hosts(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["::ffff:127.0.0.1", "[::ffff:127.0.0.1]", "::ffff:7f00:1", "::FFFF:127.9.9.9"])
def test_loopback_ipv4_in_ipv6(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "::",
        "[::]",
        "::ffff:0.0.0.0",
        "10.0.0.1",
        "192.168.1.2",
        "128.0.0.1",
        "126.255.255.255",
        "::2",
        "fe80::1",
        "::ffff:10.0.0.1",
        "127.example.com",
        "localhost.example.com",
        "notlocalhost",
        "example.com",
        "127.0.0.1.nip.io",
        "127.0.0.256",
        "127.0.0",
        "0127.0.0.1",
        "127.0.0.1:8000",
        "[::1]:8000",
        "http://127.0.0.1",
        "127.0.0.1 ",
        "١٢٧.0.0.1",
        "",
        "[]",
        "[",
        "\x00",
        "a" * 10_000,
    ],
    ids=lambda host: ascii(host)[:30],
)
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.enable_socket
def test_port_0_takes_a_free_port() -> None:
    with listen("127.0.0.1", 0) as place:
        place.listen()
        host, port = place.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(InputError, match=rf"cannot listen at 127\.0\.0\.1 port {port}: .*choose another"):
            listen("127.0.0.1", port)
    with listen("127.0.0.1", port) as again:  # at once, though connections to it may still be closing
        assert again.getsockname()[1] == port


@pytest.mark.enable_socket
@pytest.mark.parametrize(("host", "port"), [("203.0.113.1", 0), ("a" * 300, 0), ("\x00", 0)])
def test_address_of_another_machine_is_refused(host: str, port: int) -> None:
    with pytest.raises(InputError, match="cannot listen at"):
        listen(host, port)


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.enable_socket
def test_bound_address_is_refused_before_it_listens() -> None:
    """Two servers that are started together: the second is told at once, not when its model is loaded."""
    with listen("127.0.0.1", 0) as first, pytest.raises(InputError, match="cannot listen at"):
        listen("127.0.0.1", first.getsockname()[1])


def serve_one_client(listening: socket.socket) -> None:
    """Accept a connection and close it first: it stays in TIME_WAIT on this side."""
    with socket.create_connection(listening.getsockname()) as client:
        accepted, _ = listening.accept()
        accepted.close()
        assert client.recv(1) == b""


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.enable_socket
@pytest.mark.skipif(sys.platform == "win32", reason="addresses are not reused there")
def test_address_can_be_bound_again_after_a_server_with_clients() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        first.listen()
        allow_restart(first)
        serve_one_client(first)
        with pytest.raises(InputError, match="cannot listen at"):
            listen("127.0.0.1", port)
    with listen("127.0.0.1", port) as second:
        second.listen()
        allow_restart(second)
        serve_one_client(second)
        with pytest.raises(InputError, match="cannot listen at"):
            listen("127.0.0.1", port)


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.enable_socket
def test_asyncio_sets_nodelay_on_connections() -> None:
    """It does so only for sockets whose protocol is named."""

    async def accepted_socket() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            option = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            found.set_result(option)
            writer.close()

        with listen("127.0.0.1", 0) as listening:
            assert listening.proto == socket.IPPROTO_TCP
            async with await asyncio.start_server(connected, sock=listening):
                _, writer = await asyncio.open_connection(*listening.getsockname())
                writer.close()
                return await found

    assert asyncio.run(accepted_socket()) != 0


def test_requests_of_other_sites_are_refused(start: Any, image_file: bytes) -> None:
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
