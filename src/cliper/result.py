"""The result of a segmentation."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cliper.errors import ClassListError, OutputError, quote_path
from cliper.settings import Settings

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from cliper.formats.regions import Region

__all__ = ["Segmentation", "why_absent"]

_MAX_HINT = 0.9  # above it, a sensitivity would turn on what is not in the image


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The label map of an image, and the class maps that it was computed from.

    ``np.asarray(result)`` is the label map, ``result["dog"]`` the mask of a class; Jupyter shows the overlay.

    Args:
        image: RGB, W x H pixels, EXIF orientation applied.
        classes: C names; label ``i + 1`` is ``classes[i]``, label 0 is background.
        labels: [H, W] int32.
        confidence: [C] float32; above 1 for some refiners; a class whose confidence is not above the
            score threshold (``settings.thresholds()``) gets no pixel.
        maps: [C, h, w] float32, class maps before refinement.
        refined: [C, S, S'] float32, class maps after refinement and edge-aware smoothing (the same as ``maps`` without
            both).
        settings: the settings in use.
        model: name of the checkpoint, or path of its folder.
        refiner: name of the refiner, or None.
    """

    image: Image.Image
    classes: tuple[str, ...]
    labels: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32]
    refined: npt.NDArray[np.float32]
    settings: Settings
    model: str
    refiner: str | None = None

    @classmethod
    def from_maps(
        cls,
        image: Image.Image,
        classes: Sequence[str],
        maps: Tensor,
        refined: Tensor,
        *,
        settings: Settings,
        model: str,
        refiner: str | None = None,
    ) -> Segmentation:
        """Assign labels to class maps. Arguments as above; the maps are tensors on any device."""
        from cliper.ops.labels import class_confidence

        return cls(
            image=image,
            classes=tuple(classes),
            labels=_label_map(image, maps, refined, settings),
            confidence=class_confidence(refined, maps).cpu().numpy(),
            maps=maps.cpu().numpy(),
            refined=refined.cpu().numpy(),
            settings=settings,
            model=model,
            refiner=refiner,
        )

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """[C, H, W] float32 from 0 to about 1: a pixel's label is the class with the highest score.

        Computed at each access; takes 4 * C * H * W bytes.

        Raises:
            ResourceError: memory ran out.
        """
        import torch

        from cliper.devices import convert_out_of_memory
        from cliper.ops.labels import class_scores

        size = (self.image.height, self.image.width)
        refined, maps = torch.from_numpy(self.refined), torch.from_numpy(self.maps)
        with convert_out_of_memory():
            values: npt.NDArray[np.float32] = class_scores(
                refined, maps, size, score_threshold=self.settings.thresholds()[0], normalize=self.settings.normalize
            ).numpy()
        return values

    @property
    def areas(self) -> dict[str, float]:
        """Share of the image's pixels of each class, in the order of :attr:`classes`; the rest is background."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes) + 1)
        shares = counts[1:] / self.labels.size
        return {name: float(share) for name, share in zip(self.classes, shares, strict=True)}

    @property
    def absent(self) -> dict[str, str]:
        """Why each class without a pixel has none, and what would change that, in the order of :attr:`classes`."""
        areas, confidences = self.areas, zip(self.classes, self.confidence.tolist(), strict=True)
        return {name: why_absent(value, self.settings) for name, value in confidences if not areas[name]}

    @property
    def boxes(self) -> dict[str, tuple[int, int, int, int]]:
        """Left, top, right and bottom in pixels of each class that was found; right and bottom are not included."""
        from cliper.formats.regions import class_regions

        found = {}
        for region in class_regions(self.labels):
            left, top, width, height = region.box
            found[self.classes[region.label - 1]] = (left, top, left + width, top + height)
        return found

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """[H, W] bool, the pixels of a class; ``result[name]`` is the same.

        Raises:
            ClassListError: there is no such class.
        """
        mask: npt.NDArray[np.bool_] = self.labels == self._label(name)
        return mask

    __getitem__ = mask

    def regions(self, name: str) -> list[Region]:
        """The connected regions of a class, in reading order: each with ``area``, ``box`` and ``mask``.

        Raises:
            ClassListError: there is no such class.
        """
        from cliper.formats.regions import find_regions

        label = self._label(name)
        return list(find_regions(np.where(self.labels == label, label, 0)))

    def _label(self, name: str) -> int:
        if name not in self.classes:
            near = difflib.get_close_matches(str(name), self.classes, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the classes are: {', '.join(self.classes)}"
            raise ClassListError(f"no class of this result is called {name!r}; {hint}")
        return self.classes.index(name) + 1

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.labels, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        found = {name: area for name, area in self.areas.items() if area}
        shares = [f"{name} {area:.1%}" for name, area in sorted(found.items(), key=lambda item: -item[1])]
        more = [] if len(shares) <= 5 else [f"{len(shares) - 5} more"]
        size = f"{self.image.width}x{self.image.height}"
        return f"Segmentation({size}: {', '.join(shares[:5] + more) or 'nothing found'})"

    def _repr_png_(self) -> bytes:
        from cliper.formats.display import notebook_png

        return notebook_png(self)

    def _repr_html_(self) -> str:
        from cliper.formats.display import notebook_html

        return notebook_html(self, self.areas, self.absent)

    def show(self) -> None:
        """Show the overlay: in a notebook below the cell, elsewhere in the system's image viewer."""
        from cliper.formats.display import show_overlay

        show_overlay(self)

    def plot(self, axes: Any = None) -> Any:
        """Draw the overlay and a legend with matplotlib, on ``axes`` or a new figure; returns the axes.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from cliper.formats.display import draw_figure

        return draw_figure(self, axes)

    def relabel(
        self,
        *,
        sensitivity: float | None = None,
        background_threshold: float | None = None,
        score_threshold: float | None = None,
        normalize: bool | None = None,
    ) -> Segmentation:
        """Assign labels again with other thresholds, without running a network; None keeps a setting.

        Raises:
            SettingsError: a value is out of range.
        """
        import torch

        given: dict[str, Any] = {
            "sensitivity": sensitivity,
            "background_threshold": background_threshold,
            "score_threshold": score_threshold,
            "normalize": normalize,
        }
        settings = self.settings.replace(**{k: v for k, v in given.items() if v is not None})
        maps, refined = torch.from_numpy(self.maps), torch.from_numpy(self.refined)
        return replace(self, labels=_label_map(self.image, maps, refined, settings), settings=settings)

    def clean(self, *, min_area: int | str = 0, fill_holes: bool = False, smooth: int = 0) -> Segmentation:
        """Remove small regions, fill holes and smooth borders of the label map.

        Scores and confidence stay the same. :meth:`relabel` starts from the class maps and undoes it.

        Args:
            min_area: regions of fewer pixels, or of a smaller share of the image such as ``"0.01%"``, get the label
                around them.
            fill_holes: whether background enclosed by one class becomes that class.
            smooth: radius in pixels of a square majority filter; 0 is off.

        Raises:
            InputError: a number is below 0, or ``min_area`` is neither pixels nor a share.
        """
        from cliper.formats.regions import min_pixels
        from cliper.ops.cleaning import clean_labels

        pixels = min_pixels(min_area, self.labels.shape)
        return replace(self, labels=clean_labels(self.labels, min_area=pixels, fill_holes=fill_holes, smooth=smooth))

    def overlay(self, *, opacity: float = 0.55, legend: bool = True) -> Image.Image:
        """The image with each class in its colour, and a legend of the classes in the label map.

        Args:
            opacity: of the colours, from 0 to 1.
            legend: whether to add the legend.
        """
        from cliper.formats import draw_overlay

        return draw_overlay(self.image, self.labels, self.classes, opacity=opacity, legend=legend)

    def save(self, path: str | Path) -> Path:
        """Write the result to a file, atomically.

        Args:
            path: ``.png`` for the label map (indexed, VOC palette); ``.npz`` for labels, scores, classes and
                confidence; ``.jpg``, ``.jpeg`` or ``.webp`` for the overlay. For an overlay as PNG see
                :meth:`save_overlay`.

        Returns:
            The path.

        Raises:
            OutputError: another suffix, or the file cannot be written.
        """
        from cliper.formats import write_label_png, write_npz

        suffix = Path(path).suffix.lower()
        if suffix == ".png":
            write_label_png(path, self.labels, max_label=len(self.classes), classes=self.classes)
        elif suffix == ".npz":
            write_npz(path, self)
        elif suffix in {".jpg", ".jpeg", ".webp"}:
            self.save_overlay(path)
        else:
            raise OutputError(f"{quote_path(path)}: expected a name ending in .png, .npz, .jpg, .jpeg or .webp")
        return Path(path)

    def save_overlay(self, path: str | Path, *, opacity: float = 0.55, legend: bool = True) -> Path:
        """Write the overlay as PNG, JPEG or WebP, by the suffix.

        Raises:
            OutputError: another suffix, or the file cannot be written.
        """
        from cliper.formats import write_overlay

        write_overlay(path, self.overlay(opacity=opacity, legend=legend))
        return Path(path)

    def to_coco(self, *, file_name: str = "", image_id: int = 1, min_area: int | str = "0.01%") -> dict[str, Any]:
        """A COCO instances document of this image: one annotation for each connected region, as compressed RLE.

        Args:
            file_name: of the image in the document.
            image_id: of the image in the document.
            min_area: smaller regions are left out; pixels, or a share of the image.
        """
        from cliper.formats import ImageInfo
        from cliper.formats.coco import coco_document

        return coco_document(self, ImageInfo(file_name, self.image.width, self.image.height, image_id), min_area)

    def to_label_studio(self, *, image_url: str = "", min_area: int | str = "0.01%") -> dict[str, Any]:
        """A Label Studio task with a prediction: one brush mask for each class that was found.

        Args:
            image_url: address from which Label Studio loads the image.
            min_area: smaller regions are left out of the masks; pixels, or a share of the image.
        """
        from cliper.formats.label_studio import label_studio_task

        return label_studio_task(self, image_url, min_area)

    def to_transformers(self) -> list[dict[str, Any]]:
        """``label``, ``score`` and ``mask`` of each class that was found, like transformers' segmentation pipeline.

        Masks are PIL images of mode L, 255 inside.
        """
        from cliper.formats.interop import to_transformers

        return to_transformers(self)

    def to_supervision(self) -> Any:
        """``supervision.Detections``, one for each class that was found; ``class_id`` is the index in ``classes``.

        Raises:
            MissingExtraError: supervision is not installed.
        """
        from cliper.formats.interop import to_supervision

        return to_supervision(self)


def why_absent(confidence: float, settings: Settings) -> str:
    """Why a class of that confidence has no pixel, and what would change that.

    Example:
        >>> why_absent(0.52, Settings(score_threshold=0.6))
        'below the threshold 0.6: 0.52; sensitivity 0.57 turns it on'
    """
    threshold, _ = settings.thresholds()
    if confidence == 0 and settings.chooses_classes:
        top, share = settings.class_top, settings.class_min_score
        reasons = [f"not among the {top} most likely classes of the image (class_top)"] if top else []
        reasons += [f"less than {share:g} times as likely as the most likely one (class_min_score)"] if share else []
        return " or ".join(reasons)
    if confidence > threshold:
        return "other classes, or background, score higher everywhere; fewer classes, or other words, may help"
    needed = settings.sensitivity_for(confidence)
    may_turn_on = needed is not None and needed <= _MAX_HINT
    hint = f"sensitivity {needed:.2f} turns it on" if may_turn_on else "other words may help"
    return f"below the threshold {threshold:.2g}: {confidence:.2f}; {hint}"


def _label_map(image: Image.Image, maps: Tensor, refined: Tensor, settings: Settings) -> npt.NDArray[np.int32]:
    """[H, W] labels of the image's pixels."""
    from cliper.ops.labels import assign_labels

    score_threshold, background_threshold = settings.thresholds()
    labels = assign_labels(
        refined,
        maps,
        (image.height, image.width),
        background_threshold=background_threshold,
        score_threshold=score_threshold,
        normalize=settings.normalize,
    )
    return labels.cpu().numpy().astype(np.int32)
