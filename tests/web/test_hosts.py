"""Which hosts only this machine reaches: what is not known to be so is not taken for it."""

from __future__ import annotations

import ipaddress

import pytest

from cliper.web.hosts import is_loopback


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


@pytest.mark.xfail(
    not ipaddress.ip_address("::ffff:127.0.0.1").is_loopback,
    strict=True,
    reason="this Python does not look at the IPv4 address inside, and neither do we",
)
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
