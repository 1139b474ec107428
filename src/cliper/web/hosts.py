"""Hosts and ports to listen at."""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import Any

from cliper.errors import InputError

__all__ = ["allow_restart", "is_loopback", "listen"]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it; of a name that is not ``localhost`` nothing is assumed.

    Example:
        >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "127.example.com")]
        [True, True, True, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    inner = getattr(address, "ipv4_mapped", None)  # which Python looks at by itself from 3.13 on
    return (inner or address).is_loopback


def listen(host: str, port: int) -> socket.socket:
    """A socket for an address; nobody is let in yet.

    Args:
        host: a name or an address of this machine.
        port: 0 takes a free one.

    Raises:
        InputError: an address that is not this machine's, or that is in use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        try:
            found = _bound(family, address, reuse=False)
        except OSError:
            if sys.platform == "win32":
                raise
            # Connections of a server that has just ended may still be closing. Not tried first: two that do so
            # get the same address, as long as neither listens.
            found = _bound(family, address, reuse=True)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen at {host} port {port}: {reason}; choose another --host or --port") from None
    return found


def allow_restart(listening: socket.socket) -> None:
    """Let the next server have this address at once, although connections of this one may still be closing.

    Connections inherit SO_REUSEADDR from the socket that accepts them, and only then can their address be bound
    again before they have ended (60 s on Linux). To be called once the socket listens: before, a second server
    could bind the address too.
    """
    if sys.platform != "win32":  # there it would let others take the address over
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)


def _bound(family: int, address: Any, *, reuse: bool) -> socket.socket:
    # With the protocol named, asyncio sets TCP_NODELAY on connections; with 0 it does not, and an answer in two parts
    # waits for the client's delayed acknowledgement.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made
