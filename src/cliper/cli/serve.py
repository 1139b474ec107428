"""``cliper serve``: segmentation over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from cliper.cli.errors import echo_warning
from cliper.cli.help import GroupedCommand, option, option_group
from cliper.cli.options import address_options, load_segmenter, model_options
from cliper.errors import InputError, MissingExtraError

__all__ = ["serve"]

# Field of Limits -> name of the option.
_LIMITS = {
    "queue": "queue_size",
    "seconds": "timeout",
    "megabytes": "max_megabytes",
    "megapixels": "max_megapixels",
    "classes": "max_classes",
    "labelling": "max_pixel_classes",
    "patches": "max_patches",
    "texts": "max_texts",
}

_EXAMPLES = """\
cliper serve --refiner self
curl -F image=@photo.jpg -F classes=dog http://127.0.0.1:8000/v1/segment"""


@click.command(cls=GroupedCommand, epilog=_EXAMPLES)
@address_options(8000)
@option_group(
    "Server",
    option(
        "--token TEXT",
        "Token that clients must send. Others on this machine can read a command line: better set CLIPER_TOKEN.",
        show_default="CLIPER_TOKEN, else none",
    ),
    option(
        "--batch-size N",
        "Number of images that go through the model together at most.",
        type=click.IntRange(1, 64),
        show_default="1 on a CPU, 8 on a GPU",
    ),
    option("--batch-window MS", "Milliseconds that a request waits for others to join its batch.", default=5.0),
    option(
        "--label-studio-folder FOLDER",
        "Folder of the images of Label Studio's tasks.",
        show_default="tasks must contain their images",
    ),
)
@option_group(
    "Limits",
    option("--queue-size N", "Maximum concurrent requests, waiting ones included; further ones get 429.", default=32),
    option("--timeout SECONDS", "Time limit of a request.", default=60.0),
    option("--max-megabytes X", "Size of a request's body.", default=16.0),
    option("--max-megapixels X", "Size of an image.", default=16.0),
    option("--max-classes N", "Number of classes in a request, and of background names.", default=256),
    option("--max-pixel-classes X", "Megapixels of an image times number of classes.", default=1000.0),
    option("--max-patches N", "Number of patches of an image, of all its windows together.", default=4096),
    option("--max-texts N", "Number of texts in a request: prompts times templates.", default=8192),
)
@model_options
def serve(host: str, port: int, token: str | None, label_studio_folder: Path | None, **options: Any) -> int:
    """Serve segmentation over HTTP: POST /v1/segment.

    /openapi.json describes the API. Requests may change settings, not the model. SIGTERM or Ctrl-C ends the server
    after the accepted requests, with exit code 0.
    """
    try:
        from cliper.web.hosts import is_loopback, listen
        from cliper.web.service.folder import PictureFolder
        from cliper.web.service.guard import check_token
        from cliper.web.service.limits import Limits
        from cliper.web.service.run import patient
        from cliper.web.service.run import serve as answer
        from cliper.web.service.served import Served
        from cliper.web.service.service import Service
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "cliper":
            raise  # no package is missing: a defect
        raise MissingExtraError("cliper serve needs packages that are missing; pip install 'cliper[web]'") from None

    try:
        limits = Limits(**{field: options[name] for field, name in _LIMITS.items()})
    except InputError as error:  # name the option, not the field
        field, _, reason = str(error).partition(":")
        raise InputError(f"--{_LIMITS[field].replace('_', '-')}:{reason}") from None
    if token is None:  # not by click's envvar, which takes an empty token for none
        token = os.environ.get("CLIPER_TOKEN")
    token = None if token is None else check_token(token)
    folder = None if label_studio_folder is None else PictureFolder(label_studio_folder)
    window = options["batch_window"]
    if not 0 <= window <= 1000:  # click.FloatRange accepts NaN
        raise InputError(f"--batch-window: expected milliseconds from 0 to 1000, got {window:g}")
    with listen(host, port) as socket:
        if token is None and not is_loopback(host):
            echo_warning(f"everyone who can reach {host} may use this service; set CLIPER_TOKEN")
        served = Served(load_segmenter(options), limits, batch=options["batch_size"])
        served.try_out()
        service = Service(served, window=window / 1000, token=token, folder=folder)
        with patient(service), service:
            answer(service, socket, ready=lambda address: click.echo(f"{served.name} at {address}"))
    return 0
