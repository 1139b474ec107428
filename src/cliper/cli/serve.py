"""``cliper serve``: segmentation over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from cliper.cli.options import load_segmenter, model_options
from cliper.errors import InputError, MissingExtraError

__all__ = ["serve"]

# Of Limits -> of the options.
_LIMITS = {
    "queue": "queue",
    "seconds": "timeout",
    "megabytes": "max_megabytes",
    "megapixels": "max_megapixels",
    "classes": "max_classes",
    "labelling": "max_labelling",
    "patches": "max_patches",
    "texts": "max_texts",
}


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 is everywhere.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--token", default=None, help="That callers must send; better as CLIPER_TOKEN in the environment.")
@click.option("--queue", type=int, default=32, show_default=True, help="Requests at a time; more are told to wait.")
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Of a request, in seconds.")
@click.option("--batch", type=int, default=None, help="Pictures that go through the model together at most.")
@click.option("--batch-window", type=float, default=5.0, show_default=True, help="Wait for others, in milliseconds.")
@click.option("--max-megabytes", type=float, default=16.0, show_default=True, help="Of a request.")
@click.option("--max-megapixels", type=float, default=16.0, show_default=True, help="Of a picture.")
@click.option("--max-classes", type=int, default=256, show_default=True, help="Of a request; as many background names.")
@click.option(
    "--max-labelling", type=float, default=1000.0, show_default=True, help="Megapixels of a picture times classes."
)
@click.option("--max-patches", type=int, default=4096, show_default=True, help="Of a picture as the model sees it.")
@click.option("--max-texts", type=int, default=8192, show_default=True, help="Of a request: prompts times templates.")
@click.option(
    "--label-studio-folder",
    type=click.Path(path_type=Path),
    default=None,
    help="Where pictures of Label Studio's tasks lie; by default tasks must bring theirs.",
)
@model_options
def serve(host: str, port: int, token: str | None, label_studio_folder: Path | None, **options: Any) -> int:
    """Answer POST /v1/segment and others over HTTP, until SIGTERM; what was let in is finished.

    The description is at /openapi.json. The model is loaded once; requests may change settings, not the model.

    \b
    cliper serve --model ViT-B/16
    curl -F image=@photo.jpg -F classes=dog -F classes=grass http://127.0.0.1:8000/v1/segment
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
    except InputError as error:  # in the words of the command line
        field, _, said = str(error).partition(":")
        raise InputError(f"--{_LIMITS[field].replace('_', '-')}:{said}") from None
    if token is None:  # an empty one is a mistake, not a wish to have none: click would not tell
        token = os.environ.get("CLIPER_TOKEN")
    token = None if token is None else check_token(token)
    folder = None if label_studio_folder is None else PictureFolder(label_studio_folder)
    batch, window = options["batch"], options["batch_window"]
    if batch is not None and not 1 <= batch <= 64:
        raise InputError(f"--batch: expected a number from 1 to 64, got {batch}")
    if not 0 <= window <= 1000:
        raise InputError(f"--batch-window: expected milliseconds from 0 to 1000, got {window:g}")
    with listen(host, port) as place:
        if token is None and not is_loopback(host):
            click.echo(f"cliper: warning: whoever reaches {host} may use this service; set CLIPER_TOKEN", err=True)
        served = Served(load_segmenter(options), limits, batch=batch)
        served.try_out()
        service = Service(served, window=window / 1000, token=token, folder=folder)
        with patient(service), service:
            answer(service, place, ready=lambda address: click.echo(f"{served.name} at {address}"))
    return 0
