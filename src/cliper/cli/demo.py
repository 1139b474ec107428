"""``cliper demo``: a page in the browser."""

from __future__ import annotations

from typing import Any

import click

from cliper.cli.errors import echo_warning
from cliper.cli.help import GroupedCommand, option, option_group
from cliper.cli.options import address_options, load_segmenter, model_options

__all__ = ["demo"]


@click.command(cls=GroupedCommand, epilog="cliper demo\ncliper demo --model ViT-B/16 --refiner sd2.1")
@address_options(7860)
@option_group("Server", option("--share", "Open a public address for everyone, too, through Gradio's servers."))
@model_options
def demo(host: str, port: int, share: bool, **options: Any) -> None:
    """Serve a demo page in the browser.

    Choose an image, type words, explore the result and save it. The model options set what the page starts with.
    Visitors choose among the models of cliper models list that are on this machine; the page never downloads one.
    Ctrl-C ends the server with exit code 0.
    """
    import functools

    from cliper.segmenter import Segmenter
    from cliper.web.hosts import is_loopback
    from cliper.web.page.run import free_port, interruptions, serving

    free_port(host, port)  # before anything large is loaded
    start = load_segmenter(options)
    load = functools.partial(
        Segmenter.from_pretrained, device=options["device"], dtype=options["dtype"], seed=options["seed"]
    )
    if not is_loopback(host):
        echo_warning(f"{host} is reachable from other machines, and the page asks for no password")
    with (
        interruptions() as wait,
        serving(start, load, host=host, port=port, share=share) as (address, public),
    ):
        click.echo(f"the page is at {address}" + (f" and, for everyone, at {public}" if public else ""))
        wait()
