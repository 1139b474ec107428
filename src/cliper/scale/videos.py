"""Frames of a video, through PyAV, and a video of their overlays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.errors import CliperError, InputError, MissingExtraError, quote_path, short_reason
from cliper.scale.items import Item
from cliper.scale.places import is_remote, open_file

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

__all__ = ["VideoSource", "write_overlay_video"]


class VideoSource:
    """Every n-th frame of a video; frame 120 is called ``frame-00000120.png``.

    Args:
        address: of the video.
        every: 1 takes every frame.

    Raises:
        InputError: it is no video, or ``every`` is below 1.
        MissingExtraError: PyAV is not installed.
    """

    kind, held = "video", True

    def __init__(self, address: str, every: int = 1) -> None:
        if every < 1:
            raise InputError(f"--every: expected at least 1, got {every}")
        self.address = address
        self.every = every
        with _opened(address) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            self.rate = None if rate is None else rate / every
            """Pictures a second, as a fraction, if the video says so."""
            self._frames = int(stream.frames)

    def items(self) -> Iterator[Item]:
        """Frame by frame.

        Raises:
            InputError: the video is cut off or damaged; the frames before that have been given.
        """
        import av

        index = -1
        try:
            with _opened(self.address) as container:
                for index, frame in enumerate(_frames(container)):
                    if index % self.every == 0:
                        yield Item(index // self.every + 1, frame_name(index), self.address, held=Frame(frame))
        except (av.error.FFmpegError, _DamagedError) as error:
            raise InputError(
                f"expected a whole video, got a damaged one: {quote_path(self.address)} ({short_reason(error)}, after "
                f"frame {index}); fetch or export it again"
            ) from None

    def count(self) -> int | None:
        """As the video's header says, if it does."""
        return -(-self._frames // self.every) or None


class _DamagedError(Exception):
    """What a video turned out to be."""


def _frames(container: Any) -> Iterator[Any]:
    """The decoded frames of an open video, up to where it is damaged.

    Few containers say that they were cut off: so damaged packets are looked for before they are decoded, and the end is
    compared with the header's.

    Raises:
        _DamagedError: something is damaged or missing.
        FFmpegError: as PyAV found it.
    """
    stream = container.streams.video[0]
    # Not AUTO, which may work on many frames at once: what goes wrong is then told by chance, or not at all.
    stream.thread_type = "SLICE"
    end = _End(container, stream)
    damaged = False
    for packet in container.demux():
        if packet.stream is not stream:
            end.saw(packet, stream)
            continue
        damaged = bool(packet.is_corrupt)
        if damaged:
            break
        end.saw(packet, stream)
        yield from _whole(packet.decode())
    if damaged:
        yield from _whole(stream.codec_context.decode(None))  # what the decoder still holds was whole
        raise _DamagedError("a frame is cut off or damaged")
    end.check()


def _whole(frames: Iterable[Any]) -> Iterator[Any]:
    for frame in frames:
        if frame.is_corrupt:
            raise _DamagedError("a frame is damaged")
        yield frame


class _End:
    """Where a video ends, and where its header says that it does, in seconds."""

    def __init__(self, container: Any, stream: Any) -> None:
        import av

        self._expected: Fraction | None = None  # a header without a length is fine
        self._of_stream = bool(stream.duration)
        if self._of_stream:
            self._expected = ((stream.start_time or 0) + stream.duration) * stream.time_base
        elif container.duration:  # of all that is in it: sound may be longer than the pictures
            self._expected = Fraction((container.start_time or 0) + container.duration, av.time_base)
        self._frame = 1 / (stream.average_rate or stream.guessed_rate or Fraction(25))
        self._last: Fraction | None = None
        self._longest = Fraction(0)

    def saw(self, packet: Any, stream: Any) -> None:
        """Take note of a packet, of the pictures or of something else."""
        time = packet.dts if packet.pts is None else packet.pts
        if time is None or (self._of_stream and packet.stream is not stream):
            return
        end = (time + (packet.duration or 0)) * packet.time_base
        if self._last is not None and packet.stream is stream:
            self._longest = max(self._longest, end - self._last)
        self._last = end if self._last is None else max(self._last, end)

    def check(self) -> None:
        """Compare.

        Lengths in headers are rounded, or estimated from rates; and containers that do not say for how long the last
        frame is shown may have counted any time that others are. So some frames, a hundredth, and the longest pause
        between two frames may be missing.
        """
        if self._expected is None:
            return
        last = self._last or Fraction(0)
        if last < self._expected - max(3 * self._frame, self._expected / 100, self._longest):
            raise _DamagedError(f"it ends at {float(last):.2f} s, its header says {float(self._expected):.2f} s")


class Frame:
    """A decoded frame that becomes a picture when it is needed.

    Args:
        frame: of PyAV.
    """

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def to_image(self) -> Image.Image:
        """RGB, turned as the video says it is to be shown."""
        image: Image.Image = self._frame.to_image()
        turn = int(self._frame.rotation) % 360  # counter-clockwise, as PIL's
        return image.rotate(turn, expand=True) if turn else image


def frame_name(index: int) -> str:
    """What frame ``index``, from 0, is called.

    Example:
        >>> frame_name(120)
        'frame-00000120.png'
    """
    return f"frame-{index:08d}.png"


def write_overlay_video(
    path: Path,
    source: VideoSource,
    labels_of: Callable[[Item], npt.NDArray[Any] | None],
    classes: tuple[str, ...],
) -> None:
    """Write a video (H.264) of the frames that were segmented, each region in its class's colour.

    Args:
        path: where to; the suffix says in which container.
        source: the video that was segmented; it is read once more.
        labels_of: the label map [H, W] of a frame, or None if it has none, which leaves the frame as it is.
        classes: names.

    Raises:
        InputError: the video cannot be read any more.
        OutputError: the file cannot be written.
    """
    import av

    from cliper.files import atomic_write
    from cliper.formats import draw_overlay

    with atomic_write(path) as temporary, av.open(str(temporary), "w") as container:
        stream: Any = None
        for item in source.items():
            picture = item.read()
            labels = labels_of(item)
            if labels is not None:
                picture = draw_overlay(picture, labels, classes, legend=False)
            if stream is None:
                stream = container.add_stream("libx264", rate=source.rate or 25)
                # H.264 of colours at half the resolution needs even sides.
                stream.width, stream.height = (side + side % 2 for side in picture.size)
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "18"}
                stream.thread_count = 1  # the same bytes each time
            if picture.size != (stream.width, stream.height):
                picture = picture.crop((0, 0, stream.width, stream.height))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        if stream is not None:
            container.mux(stream.encode(None))


def _opened(address: str) -> Any:
    try:
        import av
    except ImportError:
        raise MissingExtraError("videos need PyAV, which is not installed; pip install 'cliper[video]'") from None
    try:
        where = open_file(address) if is_remote(address) else address
        container = av.open(where, metadata_errors="ignore")
    except CliperError:
        raise
    except Exception as error:  # PyAV's, or an object store's
        raise InputError(
            f"expected a video, could not read {quote_path(address)} ({short_reason(error)}); check the path"
        ) from None
    if not container.streams.video:
        container.close()
        raise InputError(f"expected a video, got a file without pictures: {quote_path(address)}; check the path")
    return container
