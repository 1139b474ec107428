"""The page's own Gradio components. Their markup, styles and scripts are the files beside this one.

Templates of ``gr.HTML`` are programs: what a visitor typed must never get into one. The templates here are constant,
and their scripts set texts as texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr

__all__ = ["chips", "held", "picture", "read", "status", "viewer"]


def read(name: str) -> str:
    """The text of a file beside this one."""
    return (resources.files("cliper.web.page") / name).read_text(encoding="utf-8")


def picture(**options: Any) -> gr.Image:
    """A picture that was uploaded; with ``preprocess=False`` it arrives as a mapping with the ``path`` of its file.

    ``gr.Image`` as it is would fetch an address that is given for a path. It is changed here rather than in a class
    of its own, because for each such class Gradio writes a file beside its source.
    """
    made = gr.Image(type="filepath", sources=["upload", "clipboard"], **options)
    move = made.async_move_resource_to_block_cache

    async def move_files_only(place: str | Path | None) -> str | None:
        if place is not None and "://" in str(place):
            raise gr.Error("expected a picture that was uploaded, got an address", print_exception=False)
        moved: str | None = await move(place)
        return moved

    made.async_move_resource_to_block_cache = move_files_only
    return made


def _own(name: str, value: Any, *, parts: Sequence[str] = (), **props: Any) -> gr.HTML:
    """A component of ``NAME.html`` and ``NAME.js``; the scripts named by ``parts`` stand before it, as one program."""
    return gr.HTML(
        value,
        html_template=read(f"{name}.html"),
        js_on_load="\n".join(read(f"{part}.js") for part in (*parts, name)),
        apply_default_css=False,
        **props,
    )


def chips(label: str, hint: str, value: list[str], colours: list[str], **options: Any) -> gr.HTML:
    """Words as chips; its value is a list of texts."""
    return _own("chips", value, label=label, hint=hint, colours=colours, container=True, **options)


def held() -> gr.HTML:
    """A text that the browser holds, and nobody sees. A ``gr.Textbox`` would send it twice when it changes."""
    return gr.HTML("", html_template="<i></i>", apply_default_css=False, visible="hidden")


def status() -> gr.HTML:
    """One line; its value is a mapping with ``kind`` and ``text``."""
    return _own("status", {"kind": "", "text": ""}, elem_id="status", elem_classes="cliper-flat")


def viewer() -> gr.HTML:
    """The result; see ``viewer.js`` for what it takes. It has an event ``download``."""
    parts = ("viewer_read", "viewer_paint")
    return _own("viewer", None, parts=parts, scene=None, file=None, elem_id="viewer", elem_classes="cliper-flat")
