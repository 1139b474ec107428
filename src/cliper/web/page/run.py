"""Serving the page until it is interrupted."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from cliper.errors import MissingExtraError, OutputError
from cliper.segmenter import Segmenter
from cliper.web.hosts import is_loopback, listen
from cliper.web.page.actions import Actions
from cliper.web.page.kept import Kept
from cliper.web.page.limits import Limits
from cliper.web.page.models import Models

__all__ = ["free_port", "interruptions", "serving"]

# Strangers' broken requests are no news; what broke here is.
_LOGGERS = ("uvicorn.error", "python_multipart")

_HERE = ("127.0.0.1", "localhost", "::1")


def free_port(host: str, port: int) -> int:
    """The port, or one that is free for 0.

    Raises:
        InputError: it is taken, or the host is none of this machine's.
    """
    with listen(host, port) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(
    start: Segmenter,
    load: Callable[[str], Segmenter],
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    share: bool = False,
    limits: Limits | None = None,
) -> Iterator[tuple[str, str | None]]:
    """Serve the page while the block runs; what visitors left on the disk is removed at the end.

    Args:
        start: the model that the page begins with.
        load: from an alias to a segmenter without a refiner, for other models.
        host: address to listen at.
        port: 0 takes any that is free.
        share: whether to open a public address through Gradio's servers.
        limits: how much one visitor may ask for.

    Yields:
        The address, and the public one or None.

    Raises:
        MissingExtraError: Gradio is not installed.
        InputError: the address cannot be listened at.
        OutputError: there is no place for temporary files, or a public address could not be had.
    """
    port = free_port(host, port)
    limits = limits or Limits()
    with _environment(host) as folder:
        try:
            from cliper.web.page.build import build
            from cliper.web.page.closed import closing
            from cliper.web.page.look import look
        except ImportError as error:
            if not (error.name or "").startswith("gradio"):
                raise
            raise MissingExtraError("the page needs Gradio; install it: pip install 'cliper[web]'") from None
        kept = Kept(folder, limits)
        models = Models(start, load, most=limits.models, texts=limits.embeddings)
        page = build(Actions(models, kept, limits, folder))
        try:
            page.launch(
                server_name=f"[{host}]" if ":" in host else host,
                server_port=port,
                share=share,
                quiet=True,
                prevent_thread_lock=True,
                inbrowser=False,
                show_error=False,
                ssr_mode=False,
                mcp_server=False,
                pwa=False,
                enable_monitoring=False,
                run_history=False,
                footer_links=[],
                state_session_capacity=limits.sessions,
                max_file_size=f"{limits.upload_megabytes}mb",
                app_kwargs=closing(page, limits, folder, kept, local=is_loopback(host) and not share),
                **look(),
            )
            for logger in _LOGGERS:
                logging.getLogger(logger).setLevel(logging.ERROR)
            if share and not page.share_url:
                raise OutputError("a public address could not be had; try again, or leave out --share")
            yield page.local_url.rstrip("/"), page.share_url
        finally:
            with contextlib.redirect_stdout(None):
                page.close(verbose=False)


@contextlib.contextmanager
def interruptions() -> Iterator[Callable[[], object]]:
    """In the block, Ctrl-C and requests to end (SIGTERM) end the wait that is yielded, and nothing else.

    For the main thread.
    """
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended.wait
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _environment(host: str) -> Iterator[Path]:
    """What Gradio reads from the environment: no analytics, no proxy to itself, a folder of its own for files.

    Besides what it tells others, which is nothing here, Gradio counts events and sums them up after each: one is kept.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cliper-demo-"))).resolve()
        except OSError as error:
            raise OutputError(f"cannot make a temporary folder ({error.strerror}); set TMPDIR") from None
        hosts = ",".join(dict.fromkeys([*filter(None, [os.environ.get("no_proxy", "")]), *_HERE, host]))
        changed = {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(2**31),
            "GRADIO_ANALYTICS_MAX_EVENTS": "1",
            "GRADIO_TEMP_DIR": str(folder),
            "no_proxy": hosts,
            "NO_PROXY": hosts,
        }
        before = {key: os.environ.get(key) for key in changed}
        os.environ.update(changed)
        try:
            yield folder
        finally:
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value
