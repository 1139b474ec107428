"""An image after the networks: what a segmenter needs to answer for any words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cliper.errors import SettingsError
from cliper.images import to_tensor
from cliper.refiners import smooth_maps
from cliper.settings import Settings

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from cliper.encoders.base import Encoder, ImageFeatures
    from cliper.refiners import Affinity, Refiner

__all__ = ["EncodedImage", "find_usable"]

# Settings of the encoder's input and output, and those of the refiner's networks. All others apply to class maps.
_ENCODER = ("recipe", "size", "extra_sizes", "flip", "attention", "fuse_features", "window", "window_context")
_REFINER = (
    *("refine_size", "refine_resize", "refine_max_patches", "refine_layers", "refine_step"),
    *("refine_noise", "refine_vae"),
)


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image with its CLIP features and the refiner's affinity; made by :meth:`.Segmenter.encode_image`.

    A segmenter that is called with it runs no network on the image. It must have the same models, seed, and settings
    of the networks; thresholds, templates and logit scale may differ.

    Args:
        image: RGB, as :func:`cliper.images.load_image` gives it.
        views: features of CLIP's image tower, of each view of the image.
        affinity: of the refiner, or None without a refiner.
        settings: the settings in use.
        encoder: the encoder in use.
        refiner: the refiner in use, or None.
        seed: of the refiner's noise.
    """

    image: Image.Image
    views: tuple[ImageFeatures, ...]
    affinity: Affinity | None
    settings: Settings
    encoder: Encoder
    refiner: Refiner | None
    seed: int

    @property
    def nbytes(self) -> int:
        """Size of image, features and affinity in bytes."""
        tensors = [
            tensor
            for view in self.views
            for tensor in (view.embeddings, view.affinity, view.window_embeddings, view.image_embedding)
        ]
        size = sum(tensor.nbytes for tensor in tensors if tensor is not None)
        size += 0 if self.affinity is None else self.affinity.nbytes
        return size + 3 * self.image.width * self.image.height

    def refine(self, maps: Tensor, refiner: Refiner | None, settings: Settings) -> Tensor:
        """Sharpen class maps by the refiner's affinity and along the image's edges; no network runs.

        Args:
            maps: [C, h, w] float32.
            refiner: None, or the refiner that the affinity is of.
            settings: ``map_threshold``, and those that begin with ``refine_`` and ``edge_``.

        Returns:
            [C, S, S'] float32; ``maps`` without a refiner and with ``edge_weight`` 0.

        Raises:
            SettingsError, RefinerError, ResourceError: as :meth:`.Refiner.refine`.
        """
        if refiner is not None and self.affinity is not None:
            maps = refiner.apply(self.affinity, maps, settings)
        return smooth_maps(maps, to_tensor(self.image), settings) if settings.edge_weight else maps

    def check_usable(self, encoder: Encoder, refiner: Refiner | None, settings: Settings, seed: int) -> None:
        """Check that another segmenter's networks would give the same.

        Without a refiner, an image that was encoded with one can be used.

        Raises:
            SettingsError: other models, settings or seed; the message names them.
        """
        problems = self.encoder_changes(encoder, settings)
        if refiner is not None:
            problems += self.refiner_changes(refiner, settings, seed)
        if problems:
            raise SettingsError(
                f"image: it was encoded with another {', '.join(problems)}; encode it again with this segmenter"
            )

    def encoder_changes(self, encoder: Encoder, settings: Settings) -> list[str]:
        """What differs from another segmenter so that its CLIP would give other features."""
        names = list(_ENCODER)
        if settings.attention == "proxy":
            names.append("proxy_model")
        if not settings.fuse_features:
            names.append("select_layer")
        problems = [] if encoder is self.encoder else ["model"]
        if settings.chooses_classes and self.views[0].image_embedding is None:
            problems.append("choice of classes")
        return problems + self._changed_settings(names, settings)

    def refiner_changes(self, refiner: Refiner, settings: Settings, seed: int) -> list[str]:
        """What differs from another segmenter so that its refiner would give another affinity."""
        problems = [] if refiner is self.refiner else ["refiner"]
        problems += [] if seed == self.seed else ["seed"]
        return problems + self._changed_settings(_REFINER, settings)

    def _changed_settings(self, names: Iterable[str], settings: Settings) -> list[str]:
        return [name for name in names if getattr(settings, name) != getattr(self.settings, name)]


def find_usable(
    known: Sequence[Sequence[EncodedImage]], is_usable: Callable[[EncodedImage], bool]
) -> list[EncodedImage]:
    """Of the encodings of each image the first that can be used; nothing if an image has none."""
    found = [next(filter(is_usable, encodings), None) for encodings in known]
    return [one for one in found if one is not None] if None not in found else []
