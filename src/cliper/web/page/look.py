"""How the page looks: fonts that every system has, nothing fetched from anywhere."""

from __future__ import annotations

from typing import Any

import gradio as gr

from cliper.web.page.components import read

__all__ = ["look"]

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def look() -> dict[str, Any]:
    """Theme, styles and the page's script, as ``launch`` takes them."""
    theme = gr.themes.Default(primary_hue="indigo", neutral_hue="slate", font=_FONTS, font_mono=_MONO)
    return {"theme": theme, "css": read("page.css"), "head": f"<script>{read('page.js')}</script>"}
