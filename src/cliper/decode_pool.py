"""Decoding in processes with limits on memory, processor time and time.

Image files are untrusted input. A file that passes the checks of :mod:`cliper.images` and still makes a decoder
allocate without end, hang or crash ends one such process, which is replaced; the caller gets one error. The processes
import neither torch nor transformers. They need POSIX.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from cliper.errors import ImageError, quote_path

__all__ = ["DecodePool", "LimitedProcess", "ProcessDiedError"]

Reply = tuple[dict[str, Any], npt.NDArray[np.uint8] | None]
Handler = Callable[[dict[str, Any], bytes], Reply]

_MAX_KEPT_BYTES = 16 * 2**20  # of the shared memory between two requests


class ProcessDiedError(Exception):
    """A :class:`LimitedProcess` exceeded a limit or crashed; the text says which, as the end of a sentence."""


class LimitedProcess:
    """A process that answers requests, each within limits; it is started again after it died. For one thread at a time.

    Requests and replies are JSON, which a process that an image has taken over cannot use to run code in this one.

    Args:
        handler: ``"module:factory"``; the factory, called in the process, returns the function that answers requests:
            from a dict and bytes to a dict and pixels or None.
        memory_limit: bytes of address space, where the system enforces such a limit.
        cpu_seconds: processor time for each request.
        wall_seconds: time for each request.
    """

    def __init__(self, handler: str, *, memory_limit: int, cpu_seconds: int, wall_seconds: float) -> None:
        self._handler = handler
        self._memory_limit, self._cpu_seconds, self._wall_seconds = memory_limit, cpu_seconds, wall_seconds
        self._closed = False
        self._lock = threading.Lock()  # between a start and close()
        self._pixels = _anonymous_file()
        self._start()

    def request(
        self, request: dict[str, Any], data: bytes = b""
    ) -> tuple[dict[str, Any], npt.NDArray[np.uint8] | None]:
        """Send a request and wait for the reply.

        Raises:
            ProcessDiedError: the process exceeded a limit or crashed.
            RuntimeError: it was closed.
        """
        if self._process.poll() is not None:
            self._start()
        try:
            self._connection.send_bytes(json.dumps(request).encode())
            self._connection.send_bytes(data)
            if not self._connection.poll(self._wall_seconds):
                self._kill()
                raise ProcessDiedError(f"it takes longer than {self._wall_seconds:g} s")
            reply = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)  # so that its exit code is its own
            self._kill()
            raise ProcessDiedError(self._cause_of_death()) from None
        shape = reply.pop("shape", None)
        return reply, None if shape is None else self._read_pixels(shape)

    def close(self) -> None:
        """End the process; a thread that waits for a reply gets an error."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._kill()
                os.close(self._pixels)

    def _start(self) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("the decoding process was closed")
            self._connection, other = Pipe()
            limits = (self._memory_limit, self._cpu_seconds, self._wall_seconds)
            arguments = (other.fileno(), self._pixels, self._handler, *limits)
            code = (
                f"import sys; sys.path[:] = {sys.path!r}; from cliper.decode_pool import _serve; _serve(*{arguments})"
            )
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libraries print about damaged files
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                pass_fds=(other.fileno(), self._pixels),
                process_group=0,  # Ctrl-C on the terminal is for the parent alone
            )
            other.close()

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def _cause_of_death(self) -> str:
        code = self._process.returncode
        if code == -signal.SIGXCPU:
            return f"it takes more than {self._cpu_seconds} s of processor time"
        if code == -signal.SIGKILL:
            return "its decoder was killed, out of memory perhaps"
        return f"it crashes its decoder ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"

    def _read_pixels(self, shape: list[int]) -> npt.NDArray[np.uint8]:
        size = os.fstat(self._pixels).st_size
        if len(shape) != 3 or min(shape) < 1 or shape[0] * shape[1] * shape[2] != size:
            raise ProcessDiedError("its decoder gave no image")
        pixels = np.empty(shape, np.uint8)
        view, done = memoryview(pixels.data).cast("B"), 0
        while done < size:
            done += os.preadv(self._pixels, [view[done:]], done)
        if size > _MAX_KEPT_BYTES:
            os.ftruncate(self._pixels, 0)
        return pixels


class DecodePool:
    """Processes that decode images. May be used by many threads at once.

    Args:
        workers: number of processes; they are started at once.
        memory_limit: bytes of address space of each process, where the system enforces such a limit.
        cpu_seconds: processor time for each image.
        wall_seconds: time for each image.

    Example:
        >>> with DecodePool(1) as pool:
        ...     pool.decode(b"no image", "upload.png")
        Traceback (most recent call last):
        cliper.errors.ImageError: expected an image (JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, AVIF, HEIC or JPEG 2000), ...
    """

    def __init__(
        self,
        workers: int,
        *,
        memory_limit: int = 2 * 2**30,
        cpu_seconds: int = 10,
        wall_seconds: float = 30.0,
        handler: str = "cliper.decode_pool:_image_decoder",
    ) -> None:
        limits = {"memory_limit": memory_limit, "cpu_seconds": cpu_seconds, "wall_seconds": wall_seconds}
        self._processes = [LimitedProcess(handler, **limits) for _ in range(workers)]  # type: ignore[arg-type]
        self._idle: queue.Queue[LimitedProcess] = queue.Queue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="cliper-decode")

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def decode(self, source: bytes | Path, name: str = "", **options: Any) -> npt.NDArray[np.uint8]:
        """Decode an image as :func:`cliper.images.load_image` does, or as the pool's handler does.

        Args:
            source: the file's bytes or its path.
            name: what messages call the image, if bytes are given.
            **options: for the handler; that of images takes ``max_pixels``, as :func:`cliper.images.load_image`.

        Returns:
            [H, W, 3] uint8, RGB, upright.

        Raises:
            ImageError: it is not an image, is damaged or too large, or exceeds a limit of the process.
            RuntimeError: the pool was closed.
        """
        if isinstance(source, bytes):
            request, data = {"name": name, **options}, source
        else:
            name, data = str(source), b""
            request = {"name": name, "path": name, **options}
        process = self._idle.get()
        try:
            reply, pixels = process.request(request, data)
        except ProcessDiedError as error:
            raise ImageError(
                f"expected an image that can be decoded, got {quote_path(name)}: {error}; export it again as PNG"
            ) from None
        finally:
            self._idle.put(process)
        if pixels is None:
            raise ImageError(str(reply.get("error")))
        return pixels

    def submit(self, source: bytes | Path, name: str = "") -> Future[npt.NDArray[np.uint8]]:
        """As :meth:`decode`, without waiting."""
        return self._threads.submit(self.decode, source, name)

    def close(self) -> None:
        """End the processes, images that they are decoding included."""
        for process in self._processes:
            process.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _anonymous_file() -> int:
    """A file without a name: in memory, where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("cliper-pixels")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _image_decoder() -> Handler:
    """The handler of :class:`DecodePool`."""
    import io

    from cliper.errors import CliperError
    from cliper.images import MAX_PIXELS, load_image, load_stream

    def decode(request: dict[str, Any], data: bytes) -> Reply:
        try:
            path = request.get("path")
            limit = request.get("max_pixels") or MAX_PIXELS
            if path is None:
                image = load_stream(io.BytesIO(data), request["name"], max_pixels=limit)
            else:
                image = load_image(path, max_pixels=limit)
            return {}, np.asarray(image)
        except (CliperError, MemoryError) as error:
            return {"error": str(error) or f"out of memory while decoding {quote_path(request['name'])}"}, None

    return decode


def _serve(
    connection: int, pixels_file: int, handler: str, memory_limit: int, cpu_seconds: int, wall_seconds: float
) -> None:
    """Answer requests until the parent closes the connection; runs in the process."""
    import importlib
    import resource

    module, _, factory = handler.partition(":")
    answer: Handler = getattr(importlib.import_module(module), factory)()
    with contextlib.suppress(ValueError, OSError):  # macOS enforces no such limit
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = memory_limit if hard == resource.RLIM_INFINITY else min(memory_limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    with Connection(connection) as parent, contextlib.suppress(EOFError, OSError):
        while True:
            request, data = json.loads(parent.recv_bytes()), parent.recv_bytes()
            # The limit is on the total of the process; exceeding it ends the process by SIGXCPU.
            used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
            hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
            limit = int(used) + 1 + cpu_seconds
            resource.setrlimit(resource.RLIMIT_CPU, (limit if hard < 0 else min(limit, hard), hard))
            signal.setitimer(signal.ITIMER_REAL, wall_seconds + 5)  # ends the process if the parent was killed
            reply, pixels = answer(request, data)
            signal.setitimer(signal.ITIMER_REAL, 0)
            del data
            if pixels is not None:
                os.ftruncate(pixels_file, pixels.size)
                view, done = memoryview(np.ascontiguousarray(pixels).data).cast("B"), 0
                while done < pixels.size:
                    done += os.pwrite(pixels_file, view[done:], done)
                reply["shape"] = list(pixels.shape)
            parent.send_bytes(json.dumps(reply).encode())
