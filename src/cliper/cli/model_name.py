"""Options that name the model: ``--model`` and ``--activation``."""

from __future__ import annotations

import click

from cliper.checkpoints.clip_config import ACTIVATIONS
from cliper.cli.completion import complete_models
from cliper.cli.help import option

__all__ = ["activation_option", "model_option"]

_KEY = "cliper.activation"


def _set_activation(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    context.meta[_KEY] = value


def _append_activation(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """The model's name as :func:`cliper.checkpoints.resolve` takes it."""
    activation = context.meta.get(_KEY)
    return f"{value}@{activation}" if activation else value


model_option = option(
    "-m, --model NAME",
    "CLIP checkpoint: mini (bundled), ViT-B/16, ViT-L/14, ViT-H/14, another encoder (SigLIP2-B/16, MetaCLIP2-B/16, "
    "TIPSv2-B/14), a Hugging Face repository, a folder, or a file of OpenCLIP or OpenAI (ViT-B-16.pt).",
    default="mini",
    shell_complete=complete_models,
    callback=_append_activation,
)
activation_option = option(
    "--activation",
    "Activation of the model's layers, for a file of OpenCLIP without open_clip_config.json beside it.",
    type=click.Choice(ACTIVATIONS),
    show_default="that of the file",
    is_eager=True,  # before --model, whose value it is appended to
    expose_value=False,
    callback=_set_activation,
)
