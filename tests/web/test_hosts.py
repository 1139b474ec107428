"""Which hosts only this machine reaches: what is not known to be so is not taken for it. And listening there."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from cliper.errors import InputError
from cliper.web.hosts import allow_restart, is_loopback, listen


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
def test_this_machine_alone(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["::ffff:127.0.0.1", "[::ffff:127.0.0.1]", "::ffff:7f00:1", "::FFFF:127.9.9.9"])
def test_ipv4_in_ipv6(host: str) -> None:
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
def test_others(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.enable_socket
def test_a_free_port_is_found_and_then_taken() -> None:
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
def test_what_cannot_be_listened_at(host: str, port: int) -> None:
    with pytest.raises(InputError, match="cannot listen at"):
        listen(host, port)


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.enable_socket
def test_an_address_is_taken_before_anybody_listens_there() -> None:
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
def test_address_is_free_at_once_after_a_server_that_had_clients() -> None:
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


@pytest.mark.allow_hosts(["127.0.0.1", "::1"])
@pytest.mark.enable_socket
def test_an_address_may_stand_in_brackets() -> None:
    try:
        place = listen("[::1]", 0)
    except InputError:
        pytest.skip("this machine has no IPv6")
    with place:
        assert place.getsockname()[0] == "::1"
