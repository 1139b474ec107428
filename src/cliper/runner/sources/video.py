"""The frames of a video, decoded by PyAV in a process with limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from typing import Any

from cliper.decode_pool import Handler, LimitedProcess, ProcessDiedError, Reply
from cliper.errors import CliperError, InputError, MissingExtraError, short_reason
from cliper.runner.items import ImageItem, Source
from cliper.runner.storage import hide_credentials, is_remote, open_file, quote_uri, storage_errors

__all__ = ["VideoSource"]


class VideoSource(Source):
    """Every n-th frame of a video; frame 120 is called ``frame-00000120.png``.

    Raises:
        InputError: it is no video, or ``every`` is below 1.
        MissingExtraError: PyAV is not installed.
    """

    kind, is_sequential = "video", True

    def __init__(self, uri: str, every: int = 1) -> None:
        super().__init__(uri)
        if every < 1:
            raise InputError(f"--every: expected at least 1, got {every}")
        try:
            import av  # noqa: F401
        except ImportError:
            raise MissingExtraError("videos need PyAV, which is not installed; pip install 'cliper[video]'") from None
        self.every = every
        with closing(_new_process()) as process:
            header = self._request(process, {"open": uri})
        rate, self._frames = header["rate"], int(header["frames"])
        self.rate = None if rate is None else Fraction(*rate) / every
        """Frames that are taken per second, as a fraction, if the video has a rate."""

    def items(self) -> Iterator[ImageItem]:
        """Frame by frame. Raises InputError where the video is cut off or damaged."""
        with closing(_new_process()) as process:
            self._request(process, {"open": self.uri})
            index = 0
            while (pixels := self._request(process, {"frame": index}).get("pixels")) is not None:
                yield ImageItem(index // self.every + 1, f"frame-{index:08d}.png", self.uri, data=pixels)
                index += self.every

    def count(self) -> int | None:
        """From the video's header, if it has a number of frames."""
        return -(-self._frames // self.every) or None

    def _request(self, process: LimitedProcess, request: dict[str, Any]) -> dict[str, Any]:
        try:
            reply, pixels = process.request(request)
        except ProcessDiedError as error:
            raise InputError(
                f"expected a video that can be decoded, got {quote_uri(self.uri)}: {error}; export it again"
            ) from None
        if "error" in reply:
            raise InputError(reply["error"])
        return {**reply, "pixels": pixels}


def _new_process() -> LimitedProcess:
    """Its limits are for finding and decoding one frame."""
    limits: Any = {"memory_limit": 4 * 2**30, "cpu_seconds": 60, "wall_seconds": 120.0}
    return LimitedProcess(f"{__name__}:_video_decoder", **limits)


def _video_decoder() -> Handler:
    """The handler of the process: opens a video, then gives one frame after another."""
    frames: Iterator[tuple[int, Any]] = iter(())
    last = -1
    uri = ""

    def open_video(request: dict[str, Any]) -> Reply:
        nonlocal frames, uri
        uri = request["open"]
        container = _open(uri)
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        frames = enumerate(_frames(container))
        return {"rate": rate and [rate.numerator, rate.denominator], "frames": stream.frames}, None

    def next_frame(request: dict[str, Any]) -> Reply:
        nonlocal last
        for last, frame in frames:
            if last == request["frame"]:
                return {}, _upright_pixels(frame)
        return {}, None

    def answer(request: dict[str, Any], data: bytes) -> Reply:
        try:
            return open_video(request) if "open" in request else next_frame(request)
        except CliperError as error:
            return {"error": str(error)}, None
        except Exception as error:  # PyAV's
            found = f"a damaged one after frame {last}: {quote_uri(uri)} ({hide_credentials(short_reason(error))})"
            return {"error": f"expected a whole video, got {found}; fetch or export it again"}, None

    return answer


def _upright_pixels(frame: Any) -> Any:
    """[H, W, 3] uint8, turned as the video says."""
    import numpy as np

    image = frame.to_image()
    rotation = int(frame.rotation) % 360  # counter-clockwise, as PIL's
    return np.asarray(image.rotate(rotation, expand=True) if rotation else image)


def _frames(container: Any) -> Iterator[Any]:
    """The decoded frames of an open video; raises ValueError where it is damaged.

    Few containers note that they were cut off, so damaged packets are looked for before they are decoded, and the end
    is compared with the header's. Lengths in headers are rounded, or estimated from rates; containers without a
    duration of the last frame may have counted any. So a few frames, a hundredth, and the longest pause between two
    frames may be missing.
    """
    stream = container.streams.video[0]
    # Not AUTO, which decodes many frames at once: errors would be reported by chance, or not at all.
    stream.thread_type = "SLICE"
    last, longest = None, Fraction(0)  # in seconds
    for packet in container.demux():
        is_frame = packet.stream is stream
        if is_frame and packet.is_corrupt:
            yield from _intact(stream.codec_context.decode(None))  # the frames that the decoder still holds
            raise ValueError("a frame is cut off or damaged")
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None and (is_frame or not stream.duration):
            end = (time + (packet.duration or 0)) * packet.time_base
            if last is not None and is_frame:
                longest = max(longest, end - last)
            last = end if last is None else max(last, end)
        if is_frame:
            yield from _intact(packet.decode())
    expected = _expected_end(container, stream)  # 0 if the header has no length, which is valid
    frame = 1 / (stream.average_rate or stream.guessed_rate or Fraction(25))
    if (last or 0) < expected - max(3 * frame, expected / 100, longest):
        raise ValueError(f"it ends at {float(last or 0):.2f} s, its header says {float(expected):.2f} s")


def _expected_end(container: Any, stream: Any) -> Fraction:
    """In seconds."""
    import av

    if stream.duration:
        return Fraction(((stream.start_time or 0) + stream.duration) * stream.time_base)
    if container.duration:  # of all streams: sound may be longer than the frames
        return Fraction((container.start_time or 0) + container.duration, av.time_base)
    return Fraction(0)


def _intact(frames: Iterable[Any]) -> Iterator[Any]:
    for frame in frames:
        if frame.is_corrupt:
            raise ValueError("a frame is damaged")
        yield frame


def _open(uri: str) -> Any:
    import av

    message = f"expected a video, could not read {quote_uri(uri)}"
    with storage_errors(InputError, message, uri, "check the path"):
        container = av.open(open_file(uri) if is_remote(uri) else uri, metadata_errors="ignore")
    if not container.streams.video:
        container.close()
        raise InputError(f"expected a video, got a file without frames: {quote_uri(uri)}; check the path")
    return container
