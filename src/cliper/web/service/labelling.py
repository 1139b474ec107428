"""Label Studio's labelling configuration: which classes, for which picture. It is a stranger's XML."""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.parsers import expat

from cliper.errors import ClassListError

__all__ = ["Labelling", "read_labelling"]


@dataclass
class Labelling:
    """What of a configuration matters here: the first brush for a picture.

    Args:
        brush: name of the tag ``BrushLabels``.
        image: name of the tag ``Image`` that it is for.
        value: key of the picture in a task's data.
        labels: text of each class, and what results call it.
    """

    brush: str
    image: str
    value: str
    labels: list[tuple[str, str]] = field(default_factory=list)


def read_labelling(text: str, most: int) -> Labelling:
    """Read a configuration. Document types, and with them entities, are refused; nothing else is ever opened.

    Args:
        text: the XML.
        most: labels that there may be.

    Raises:
        ClassListError: no XML, no ``BrushLabels`` for an ``Image``, no labels or too many.

    Example:
        >>> brush = '<BrushLabels name="b" toName="i"><Label value="dog"/></BrushLabels>'
        >>> read_labelling(f'<View><Image name="i" value="$p"/>{brush}</View>', 9).labels
        [('dog', 'dog')]
    """
    reader = _Reader(most)
    parser = expat.ParserCreate("utf-8")  # whatever encoding it says it is in
    parser.StartDoctypeDeclHandler = _no_doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    try:
        parser.Parse(text.encode("utf-8"), True)
    except (expat.ExpatError, UnicodeEncodeError) as error:
        raise ClassListError(f"label_config: expected Label Studio's XML, could not read it ({error})") from None
    for brush in reader.brushes:
        value = reader.images.get(brush.image, "")
        if value.startswith("$") and len(value) > 1:
            brush.value = value[1:]
            if not brush.labels:
                raise ClassListError(
                    f"label_config: expected <Label> in BrushLabels {brush.brush!r}, got none; add some"
                )
            return brush
    raise ClassListError(
        'label_config: expected <Image name="image" value="$image"/> and <BrushLabels toName="image" ...>, got none'
    )


class _Reader:
    def __init__(self, most: int) -> None:
        self.brushes: list[Labelling] = []
        self.images: dict[str, str] = {}
        self._most = most
        self._inside = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "Image":
            self.images[attributes.get("name", "")] = attributes.get("value", "")
        elif tag == "BrushLabels":
            self.brushes.append(Labelling(attributes.get("name", ""), attributes.get("toName", ""), ""))
            self._inside = True
        elif tag == "Label" and self._inside:
            labels = self.brushes[-1].labels
            text = attributes.get("value", "").strip()
            if not text or ";" in text:
                raise ClassListError(f"label_config: expected labels with a value and without ';', got {text[:60]!r}")
            labels.append((text, attributes.get("alias", text)))
            if len(labels) > self._most:
                raise ClassListError(f"label_config: expected at most {self._most} labels, got more; use fewer")

    def end(self, tag: str) -> None:
        if tag == "BrushLabels":
            self._inside = False


def _no_doctype(*_: object) -> None:
    raise ClassListError("label_config: expected XML without a document type, got one; take it out")
