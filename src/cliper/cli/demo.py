"""``cliper demo``: a page in the browser."""

from __future__ import annotations

from typing import Any

import click

from cliper.cli.options import load_segmenter, model_options

__all__ = ["demo"]


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; by default this machine's.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="Port; 0 for any that is free."
)
@click.option("--share", is_flag=True, help="Also open a public address, through Gradio's servers, to anyone.")
@model_options
def demo(host: str, port: int, share: bool, **options: Any) -> None:
    """Serve a page in the browser: a picture and words in, an overlay to explore and files to save out.

    The model options say what the page begins with. Visitors choose among the models named in `cliper models
    list` that are on this machine; nothing is fetched for them. Ctrl-C ends it.

    \b
    cliper demo
    cliper demo --model ViT-B/16 --refiner sd2.1
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
        click.echo(
            f"cliper: warning: {host} is reachable from other machines, and the page asks for no password", err=True
        )
    with (
        interruptions() as wait,
        serving(start, load, host=host, port=port, share=share) as (address, public),
    ):
        click.echo(f"the page is at {address}" + (f" and, for anyone, at {public}" if public else ""))
        wait()
