"""The legend of an overlay: colour, name and share of each class."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

__all__ = ["LegendEntry", "add_legend", "find_font"]

MAX_ENTRIES = 60

_PANEL = (255, 255, 255)
_TEXT = (28, 30, 33)
_MUTED = (112, 117, 124)
_LINE = (206, 210, 215)

# Pillow's own font is Latin only. These are tried in this order for names with other characters.
_OTHER_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "Arial Unicode.ttf",
    "Hiragino Sans GB.ttc",
    "arial.ttf",
    "msyh.ttc",
)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class LegendEntry:
    """One line of a legend.

    Args:
        name: of the class.
        share: of the image's area, in [0, 1]; None shows none.
        colour: red, green and blue; None draws an empty swatch.
    """

    name: str
    share: float | None
    colour: tuple[int, ...] | None


def add_legend(image: Image.Image, entries: Sequence[LegendEntry]) -> Image.Image:
    """The image with a legend below it, or to its right where the result is smaller.

    The font size grows with the image. Of more than 60 entries the last line sums up the rest.

    Args:
        image: mode RGB.
        entries: in the order to show them, column by column.

    Returns:
        A larger image, ``image`` unchanged at its top left.

    Example:
        >>> add_legend(Image.new("RGB", (640, 400)), [LegendEntry("dog", 0.25, (64, 0, 128))]).width
        640
    """
    width, height = image.size
    em = min(max(round(math.sqrt(width * height) / 36), 13), 200)
    shown = entries if len(entries) <= MAX_ENTRIES else entries[: MAX_ENTRIES - 1]
    lines = [(_printable(entry.name), _percent(entry.share), entry.colour) for entry in shown]
    if rest := entries[len(shown) :]:
        lines.append((f"and {len(rest)} more", _percent(sum(entry.share or 0 for entry in rest)), None))
    font = find_font("".join(name for name, _, _ in lines), em)
    lines = [(_shorten(name, font, 15 * em), share, colour) for name, share, colour in lines]

    margin, gap, row = round(1.1 * em), round(2.2 * em), round(1.75 * em)
    swatch = round(1.05 * em)
    names = max(font.getlength(name) for name, _, _ in lines)
    shares = max(font.getlength(share) for _, share, _ in lines)
    column = math.ceil(swatch + 0.6 * em + names + 1.1 * em + shares)

    def panel(columns: int, rows: int) -> tuple[int, int]:
        return 2 * margin + columns * (column + gap) - gap, 2 * margin + rows * row

    count = len(lines)
    below_columns = min(max((width - 2 * margin + gap) // (column + gap), 1), count)
    below_rows = math.ceil(count / below_columns)
    below = panel(math.ceil(count / below_rows), below_rows)
    right_rows = min(max((height - 2 * margin) // row, 1), count)
    right = panel(math.ceil(count / right_rows), right_rows)

    below_size = max(width, below[0]), height + below[1]
    right_size = width + right[0], max(height, right[1])
    at_right = math.prod(right_size) < math.prod(below_size)
    rows = right_rows if at_right else below_rows
    left, top = (width + margin, margin) if at_right else (margin, height + margin)
    canvas = Image.new("RGB", right_size if at_right else below_size, _PANEL)
    canvas.paste(image, (0, 0))

    draw = ImageDraw.Draw(canvas)
    for index, (name, share, colour) in enumerate(lines):
        x = left + (index // rows) * (column + gap)
        y = top + (index % rows) * row
        middle = y + row // 2
        box = (x, middle - swatch // 2, x + swatch, middle - swatch // 2 + swatch)
        if index < len(shown):  # the line that sums up the rest has no swatch
            line = max(em // 14, 1)
            draw.rounded_rectangle(box, em // 5, fill=colour or _PANEL, outline=_LINE, width=line)
        text_x = x + swatch + round(0.6 * em)
        draw.text((text_x, middle), name, fill=_TEXT if colour else _MUTED, font=font, anchor="lm")
        draw.text((x + column, middle), share, fill=_MUTED, font=font, anchor="rm")
    return canvas


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    percent = 100 * share
    return "<0.1 %" if 0 < percent < 0.1 else f"{percent:.1f} %"


def _printable(name: str) -> str:
    """One line of printable characters, cut to a length that is quick to measure."""
    text = " ".join(name[:400].split())
    text = "".join(character for character in text if character.isprintable())
    return text[:200] or "(no name)"


def _shorten(text: str, font: Font, width: float) -> str:
    def shortened(length: int) -> str:
        return text[:length].rstrip() + "…"

    if font.getlength(text) <= width:
        return text
    # The longest beginning that fits.
    length = bisect.bisect_right(range(1, len(text) + 1), width, key=lambda n: font.getlength(shortened(n)))
    return shortened(length)


def find_font(text: str, size: int) -> Font:
    """The first font with all characters of the text, or else the one that misses the fewest."""
    best: Font = ImageFont.load_default(size)
    fewest = _missing_glyphs(best, text)
    for name in _OTHER_FONTS:
        if fewest == 0:
            break
        try:
            font = ImageFont.truetype(name, size)
        except OSError:
            continue
        missing = _missing_glyphs(font, text)
        if missing < fewest:
            best, fewest = font, missing
    return best


def _missing_glyphs(font: Font, text: str) -> int:
    """Number of characters that the font draws as its box for unknown ones. (Pillow does not expose its table.)"""
    unknown = bytes(font.getmask("\uffff"))
    return sum(bytes(font.getmask(character)) == unknown for character in {*text} if not character.isspace())
