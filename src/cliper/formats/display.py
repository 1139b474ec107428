"""Results as a person sees them: in a notebook, in a window, in a figure."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from cliper.errors import MissingExtraError
from cliper.formats.base import LabeledImage, bounded_confidence
from cliper.formats.overlay import draw_overlay
from cliper.formats.palette import hex_colours

__all__ = ["draw_figure", "notebook_html", "notebook_png", "show_overlay"]

_SIDE = 1024  # a notebook stores the bytes of each image it shows


def notebook_png(result: LabeledImage, *, legend: bool = True) -> bytes:
    """The overlay as PNG, at most 1024 pixels a side without its legend."""
    image, labels = result.image, result.labels
    scale = _SIDE / max(image.size)
    if scale < 1:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size)
        rows = np.arange(size[1]) * labels.shape[0] // size[1]
        columns = np.arange(size[0]) * labels.shape[1] // size[0]
        labels = labels[np.ix_(rows, columns)]
    stream = io.BytesIO()
    draw_overlay(image, labels, result.classes, legend=legend).save(stream, format="PNG")
    return stream.getvalue()


def notebook_html(result: LabeledImage, areas: Mapping[str, float], absent: Mapping[str, str]) -> str:
    """The overlay and a table of the classes: colour, name, share of the area, confidence, or why it is absent.

    Args:
        result: what to show.
        areas: class -> share of the image's pixels.
        absent: class without a pixel -> the reason.
    """
    overlay = base64.b64encode(notebook_png(result, legend=False)).decode("ascii")
    colours = hex_colours(len(result.classes) + 1)[1:]
    confidence = bounded_confidence(result.confidence).tolist()
    classes = sorted(zip(result.classes, colours, confidence, strict=True), key=lambda row: -areas[row[0]])
    rows = []
    for name, colour, value in classes:
        swatch = f'<span style="background:{colour};display:inline-block;width:1em;height:1em"></span>'
        area = f"{areas[name]:.1%}" if name not in absent else html.escape(absent[name])
        rows.append(f"<tr><td>{swatch}</td><td>{html.escape(name)}</td><td>{area}</td><td>{value:.2f}</td></tr>")
    head = "<tr><th></th><th>class</th><th>area</th><th>confidence</th></tr>"
    return (
        f'<div><img alt="overlay" style="max-width:100%" src="data:image/png;base64,{overlay}">'
        f"<table>{head}{''.join(rows)}</table></div>"
    )


def show_overlay(result: LabeledImage) -> None:
    """Show the overlay below a notebook's cell, or in the system's image viewer."""
    overlay = draw_overlay(result.image, result.labels, result.classes)
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        overlay.show()
        return
    if get_ipython() is None:
        overlay.show()
    else:
        display(overlay)


def draw_figure(result: LabeledImage, axes: Any = None) -> Any:
    """Draw the overlay with a legend on matplotlib axes.

    Args:
        result: what to draw.
        axes: to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
        from matplotlib.patches import Patch
    except ImportError:
        message = "expected the package matplotlib, which is not installed; pip install matplotlib"
        raise MissingExtraError(message) from None
    axes = axes or plt.subplots()[1]
    axes.imshow(draw_overlay(result.image, result.labels, result.classes, legend=False))
    axes.set_axis_off()
    colours = hex_colours(len(result.classes) + 1)
    found = [label for label in np.unique(result.labels).tolist() if label]
    if found:
        patches = [Patch(color=colours[label], label=result.classes[label - 1]) for label in found]
        axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return axes
