"""Decoding processes for the tests of sources."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cliper.decode_pool import DecodePool


@pytest.fixture(scope="session")
def pool() -> Iterator[DecodePool]:
    with DecodePool(1) as pool:
        yield pool
