"""Decoders that misbehave end one limited process: the request fails with a reason, and the server continues."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from server_in_process import refused

from cliper.decode_pool import DecodePool
from cliper.server.limits import Limits


class Misbehaving(DecodePool):
    """A body of text says what its decoder does; other bodies are decoded."""

    def decode(self, source: Any, name: str = "", **options: Any) -> Any:
        return super().decode(source, source.decode() if source.isascii() else name, **options)


def test_misbehaving_decoder_is_one_failed_request(start: Any, image_file: bytes) -> None:
    handler = "hostile_decoders:decoder"
    with Misbehaving(1, memory_limit=2**30, cpu_seconds=1, wall_seconds=2, handler=handler) as decoders:
        server = start(decoders=decoders)
        refused(server.segment(b"hang"), 422, "longer than 2 s")
        refused(server.segment(b"crash"), 422, "crashes its decoder")
        refused(server.segment(b"allocate"), 422, "memory")
        response = server.segment(image_file)
        assert response.status_code == 200, response.text
        assert response.json()["width"] == 96


def test_images_are_those_of_decoding_in_this_process(start: Any, usual: Any, image_file: bytes) -> None:
    with DecodePool(1) as decoders:
        model = start(decoders=decoders, megapixels=0.01).service.model
        assert np.array_equal(model.decode(image_file, "a"), usual.service.model.decode(image_file, "a"))
        assert model.limits == Limits(megapixels=0.01)
        with pytest.raises(ValueError, match="megapixels"):
            model.decode(_png(200, 100), "a")
    response = start(decoders=decoders).segment(image_file)  # it was closed: the server is stopping
    assert response.status_code == 503


def _png(width: int, height: int) -> bytes:
    import io

    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, "PNG")
    return stream.getvalue()
