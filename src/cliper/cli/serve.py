"""``cliper serve`` and ``cliper demo``: the HTTP API and the page."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from cliper.cli.errors import echo_warning, is_quiet
from cliper.cli.help import GroupedCommand, option, option_group
from cliper.cli.options import (
    load_segmenter,
    message_options,
    model_options,
    read_background,
    read_class_options,
)
from cliper.errors import InputError, MissingExtraError
from cliper.settings import load_words

__all__ = ["demo", "serve"]

F = TypeVar("F", bound=Callable[..., Any])

_SERVER = option_group(
    "Server",
    option(
        "--token TEXT",
        "Token that clients must send. Others on this machine can read a command line: better set CLIPER_TOKEN.",
        show_default="CLIPER_TOKEN, else none",
    ),
    option(
        "--cors-origin ORIGIN",
        "Origin of another site whose pages may use the API, such as https://example.org; repeat for more.",
        "cors_origins",
        multiple=True,
    ),
    option(
        "--batch-size N",
        "Number of images that go through the model together at most.",
        type=click.IntRange(1, 64),
        show_default="1 on a CPU, 8 on a GPU",
    ),
    option(
        "--batch-window MS",
        "Milliseconds that a request waits for others to join its batch.",
        type=click.FloatRange(0, 1000),
        default=5.0,
    ),
    option(
        "--label-studio-folder FOLDER",
        "Folder of the images of Label Studio's tasks.",
        type=click.Path(file_okay=False, path_type=Path),
        show_default="tasks must contain their images",
    ),
)
# The last name of each is the field of Limits.
_LIMIT_OPTIONS = option_group(
    "Limits",
    option(
        "--queue-size N",
        "Maximum concurrent requests, waiting ones included; more get 429.",
        "queue",
        type=click.IntRange(1, 10_000),
        default=32,
    ),
    option("--timeout SECONDS", "Time limit of a request.", "seconds", type=click.FloatRange(0.001, 86400), default=60),
    option("--max-megabytes X", "Size of a request's body.", type=click.FloatRange(0.001, 1000), default=16),
    option("--max-megapixels X", "Size of an image.", type=click.FloatRange(0.001, 128), default=16),
    option(
        "--max-classes N",
        "Number of classes in a request, and of background names.",
        type=click.IntRange(1, 65535),
        default=256,
    ),
    option(
        "--max-pixel-classes X",
        "Megapixels of an image times number of classes.",
        type=click.FloatRange(0.001, 1_000_000),
        default=1000,
    ),
    option(
        "--max-patches N",
        "Number of patches of an image, of all its windows together.",
        type=click.IntRange(1, 8192),
        default=4096,
    ),
    option(
        "--max-texts N",
        "Number of texts in a request: prompts times templates.",
        type=click.IntRange(1, 10_000_000),
        default=8192,
    ),
)


def _options(port: int) -> Callable[[F], F]:
    address = option_group(
        "Server",
        option("--host NAME", "Address to listen on; 0.0.0.0 is reachable from other machines.", default="127.0.0.1"),
        option("--port N", "Port to listen on; 0 takes a free one.", type=click.IntRange(0, 65535), default=port),
    )

    def add(command: F) -> F:
        for add_group in (message_options, model_options, _LIMIT_OPTIONS, _SERVER, address):
            command = add_group(command)
        return command

    return add


_SERVE_EXAMPLES = """\
cliper serve --refiner self
curl -F image=@photo.jpg -F classes=dog http://127.0.0.1:8000/v1/segment"""


@click.command(cls=GroupedCommand, epilog=_SERVE_EXAMPLES)
@_options(8000)
def serve(**options: Any) -> int:
    """Serve an HTTP API, and a page for the browser.

    The API is POST /v1/segment and others; /openapi.json describes it. Requests may change settings, not the model.
    SIGTERM or Ctrl-C ends the server after the accepted requests, with exit code 0.
    """
    _serve(options, _echo_address)
    return 0


@click.command(cls=GroupedCommand, epilog="cliper demo\ncliper demo --model ViT-B/16 --refiner sd2.1")
@_options(7860)
@option_group("Server", option("--no-browser", "Do not open a browser.", is_flag=True))
def demo(no_browser: bool, **options: Any) -> int:
    """Open a page in the browser to try the model.

    Choose images, type words, explore the result and save it. The same as 'cliper serve', on another port. Ctrl-C ends
    the server with exit code 0.
    """
    import threading
    import webbrowser

    def ready(name: str, address: str) -> None:
        _echo_address(name, address)
        if not no_browser:
            threading.Thread(target=webbrowser.open, args=(address,), name="cliper-browser", daemon=True).start()

    _serve(options, ready)
    return 0


def _echo_address(name: str, address: str) -> None:
    if not is_quiet():
        click.echo(f"{name} at {address}")


def _example(settings: str | None) -> dict[str, list[str]]:
    """The first words of the page that the file of ``--settings`` names."""
    from cliper.prompts import format_classes

    words, example = load_words(settings), {}
    if words.classes is not None:
        example["classes"] = format_classes(read_class_options((), None, settings))
    if words.background is not None:
        background = read_background((), settings) or "none"
        example["background"] = [background] if isinstance(background, str) else format_classes(background)
    return example


def _serve(options: dict[str, Any], ready: Callable[[str, str], None]) -> None:
    import torch
    from PIL import Image

    try:
        from cliper.decode_pool import DecodePool
        from cliper.server.access import is_loopback, listen
        from cliper.server.models import CODEC_THREADS, Limits, ServedModel
        from cliper.server.run import Server
        from cliper.server.service import EXAMPLE, Service
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "cliper":
            raise  # no package is missing: a defect
        raise MissingExtraError("the server needs packages that are missing; pip install 'cliper[server]'") from None

    names = {field.name: options.get(field.name, options.get(f"max_{field.name}")) for field in fields(Limits)}
    limits = Limits(**{name: value for name, value in names.items() if value is not None})
    example = EXAMPLE | _example(options["settings"])
    host, token = options["host"], options["token"]
    if token is None:  # not by click's envvar, which takes an empty token for none
        token = os.environ.get("CLIPER_TOKEN")
    if token is not None and (not token.isascii() or not token.isprintable() or " " in token or not token):
        raise InputError("token: expected ASCII characters without blanks, got none or others; choose another")
    with listen(host, options["port"]) as socket:
        if token is None and not is_loopback(host):
            echo_warning(f"{host} is reachable from other machines, without a password; set CLIPER_TOKEN")
        # libgomp waits without spinning, which is far slower, if more than one thread uses all cores: only the model's.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        segmenter = load_segmenter(options)
        segmenter(Image.new("RGB", (64, 64), "grey"), "thing")  # finds broken weights, and caches background words
        decoders = DecodePool(CODEC_THREADS) if os.name == "posix" else None
        with contextlib.ExitStack() as stack:
            for number in (signal.SIGINT, signal.SIGTERM):  # restored when all has ended: a late Ctrl-C is not an error
                stack.callback(signal.signal, number, signal.getsignal(number))
            if decoders is not None:
                stack.enter_context(decoders)
            model = ServedModel(segmenter, limits, batch=options["batch_size"], decoders=decoders, threads=threads)
            service = Service(
                model,
                window=options["batch_window"] / 1000,
                token=token,
                media=options["label_studio_folder"],
                loopback_only=is_loopback(host),
                origins=options["cors_origins"],
                example=example,
            )
            address, port = socket.getsockname()[:2]
            name = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
            server = Server(service, lambda: ready(model.name, name))
            for number in (signal.SIGINT, signal.SIGTERM):  # from here on they do not interrupt the model
                signal.signal(number, server.handle_exit)
            stack.enter_context(service)
            server.run(sockets=[socket])
