"""The frames of a video, decoded by PyAV in a process with limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from cliper.decode_pool import Handler, LimitedProcess, ProcessDiedError, Reply
from cliper.errors import CliperError, InputError, MissingExtraError
from cliper.runner.items import ImageItem
from cliper.runner.storage import is_remote, open_file, quote_uri, storage_reason

__all__ = ["VideoSource", "frame_name"]

_LIMITS = {"memory_limit": 4 * 2**30, "cpu_seconds": 60, "wall_seconds": 120.0}  # of finding and decoding one frame


class VideoSource:
    """Every n-th frame of a video; frame 120 is called ``frame-00000120.png``.

    Raises:
        InputError: it is no video, or ``every`` is below 1.
        MissingExtraError: PyAV is not installed.
    """

    kind, is_sequential = "video", True

    def __init__(self, uri: str, every: int = 1) -> None:
        if every < 1:
            raise InputError(f"--every: expected at least 1, got {every}")
        try:
            import av  # noqa: F401
        except ImportError:
            raise MissingExtraError("videos need PyAV, which is not installed; pip install 'cliper[video]'") from None
        self.uri, self.every = uri, every
        process = LimitedProcess(f"{__name__}:_video_decoder", **_LIMITS)  # type: ignore[arg-type]
        try:
            header = self._request(process, {"open": uri})
        finally:
            process.close()
        rate, self._frames = header["rate"], int(header["frames"])
        self.rate = None if rate is None else Fraction(*rate) / every
        """Frames that are taken per second, as a fraction, if the video has a rate."""

    def items(self) -> Iterator[ImageItem]:
        """Frame by frame. Raises InputError where the video is cut off or damaged."""
        process = LimitedProcess(f"{__name__}:_video_decoder", **_LIMITS)  # type: ignore[arg-type]
        try:
            self._request(process, {"open": self.uri})
            index = 0
            while True:
                pixels = self._request(process, {"frame": index, "every": self.every}).get("pixels")
                if pixels is None:
                    return
                yield ImageItem(index // self.every + 1, frame_name(index), self.uri, data=pixels)
                index += self.every
        finally:
            process.close()

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


def frame_name(index: int) -> str:
    """The name of frame ``index``, counted from 0."""
    return f"frame-{index:08d}.png"


class _DamagedError(Exception):
    """The video is cut off or damaged."""


def _video_decoder() -> Handler:
    """The handler of the process: opens a video, then gives one frame after another."""
    frames: Iterator[Any] = iter(())
    last = -1
    uri = ""

    def next_frame(request: dict[str, Any]) -> Reply:
        nonlocal last
        for frame in frames:
            last += 1
            if last == request["frame"]:
                return {}, _upright_pixels(frame)
        return {}, None

    def answer(request: dict[str, Any], data: bytes) -> Reply:
        nonlocal frames, uri
        try:
            if "open" not in request:
                return next_frame(request)
            uri = request["open"]
            container = _open(uri)
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            frames = _frames(container)
            return {"rate": rate and [rate.numerator, rate.denominator], "frames": stream.frames}, None
        except CliperError as error:
            return {"error": str(error)}, None
        except Exception as error:  # PyAV's
            reason = f"{storage_reason(error, uri)}, after frame {last}"
            text = f"expected a whole video, got a damaged one: {quote_uri(uri)} ({reason}); fetch or export it again"
            return {"error": text}, None

    return answer


def _upright_pixels(frame: Any) -> Any:
    """[H, W, 3] uint8, turned as the video says."""
    import numpy as np

    image = frame.to_image()
    rotation = int(frame.rotation) % 360  # counter-clockwise, as PIL's
    return np.asarray(image.rotate(rotation, expand=True) if rotation else image)


def _frames(container: Any) -> Iterator[Any]:
    """The decoded frames of an open video, up to where it is damaged.

    Few containers note that they were cut off, so damaged packets are looked for before they are decoded, and the end
    is compared with the header's.
    """
    stream = container.streams.video[0]
    # Not AUTO, which decodes many frames at once: errors would be reported by chance, or not at all.
    stream.thread_type = "SLICE"
    end = _EndCheck(container, stream)
    damaged = False
    for packet in container.demux():
        if packet.stream is not stream:
            end.add(packet, stream)
            continue
        damaged = bool(packet.is_corrupt)
        if damaged:
            break
        end.add(packet, stream)
        yield from _intact(packet.decode())
    if damaged:
        yield from _intact(stream.codec_context.decode(None))  # the frames that the decoder still holds
        raise _DamagedError("a frame is cut off or damaged")
    end.check()


def _intact(frames: Iterable[Any]) -> Iterator[Any]:
    for frame in frames:
        if frame.is_corrupt:
            raise _DamagedError("a frame is damaged")
        yield frame


class _EndCheck:
    """Compares where a video ends with its header, in seconds."""

    def __init__(self, container: Any, stream: Any) -> None:
        import av

        self._expected: Fraction | None = None  # a header without a length is valid
        self._of_stream = bool(stream.duration)
        if self._of_stream:
            self._expected = ((stream.start_time or 0) + stream.duration) * stream.time_base
        elif container.duration:  # of all streams: sound may be longer than the frames
            self._expected = Fraction((container.start_time or 0) + container.duration, av.time_base)
        self._frame = 1 / (stream.average_rate or stream.guessed_rate or Fraction(25))
        self._last: Fraction | None = None
        self._longest = Fraction(0)

    def add(self, packet: Any, stream: Any) -> None:
        """Note the time of a packet, of the video stream or another."""
        time = packet.dts if packet.pts is None else packet.pts
        if time is None or (self._of_stream and packet.stream is not stream):
            return
        end = (time + (packet.duration or 0)) * packet.time_base
        if self._last is not None and packet.stream is stream:
            self._longest = max(self._longest, end - self._last)
        self._last = end if self._last is None else max(self._last, end)

    def check(self) -> None:
        """Raise if too much is missing.

        Lengths in headers are rounded, or estimated from rates; containers without a duration of the last frame may
        have counted any. So a few frames, a hundredth, and the longest pause between two frames may be missing.
        """
        if self._expected is None:
            return
        last = self._last or Fraction(0)
        if last < self._expected - max(3 * self._frame, self._expected / 100, self._longest):
            raise _DamagedError(f"it ends at {float(last):.2f} s, its header says {float(self._expected):.2f} s")


def _open(uri: str) -> Any:
    import av

    try:
        file = open_file(uri) if is_remote(uri) else uri
        container = av.open(file, metadata_errors="ignore")
    except CliperError:
        raise
    except Exception as error:  # PyAV's, or an object store's
        raise InputError(
            f"expected a video, could not read {quote_uri(uri)} ({storage_reason(error, uri)}); check the path"
        ) from None
    if not container.streams.video:
        container.close()
        raise InputError(f"expected a video, got a file without frames: {quote_uri(uri)}; check the path")
    return container
