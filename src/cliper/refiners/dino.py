"""DINO and DINOv2 as refiners: patches that look alike share what they show.

Source: arXiv 2411.13836; ``docs/method.md``, section 3, last point.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.devices import convert_out_of_memory
from cliper.errors import CheckpointError, SettingsError, short_reason
from cliper.hf_logging import silence_transformers
from cliper.ops.position_embedding import interpolate_dino_positions
from cliper.refiners.affinity import feature_affinity, spread_by_affinity
from cliper.refiners.base import check_finite, check_inputs, limit_patches, resize_picture, without_gradients
from cliper.settings import Settings

__all__ = ["DinoRefiner"]

# ImageNet's, which both families were trained with.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

_ADVICE = "lower refine_size or refine_max_patches, or use a refiner with larger patches such as dino-s16"


class DinoRefiner:
    """A ViT of the DINO or DINOv2 family.

    Args:
        folder: in ``transformers`` format, of model type ``vit`` or ``dinov2``.
        name: for messages and reports.
        device: where to run.
        dtype: of the network; affinities are float32 in any case.
        source, revision: for :meth:`describe`.

    Raises:
        CheckpointError: weights that are missing or do not fit.
        ResourceError: memory ran out.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        source: str = "local",
        revision: str | None = None,
    ) -> None:
        self.name = name
        self.device = device
        self.dtype = dtype
        self._source, self._revision = source, revision
        with convert_out_of_memory(f"loading refiner {name}", "use a smaller refiner such as dino-s16, or none"):
            self.model: Any = _load(folder, dtype).to(device)
        patch = self.model.config.patch_size
        self.patch: int = patch if isinstance(patch, int) else patch[0]
        # transformers resizes the table to the exact grid; the code of DINO and DINOv2 does not.
        embeddings = self.model.embeddings
        embeddings.interpolate_pos_encoding = partial(_positions, embeddings.position_embeddings, self.patch)

    def describe(self) -> dict[str, Any]:
        """See :meth:`Refiner.describe`."""
        return {
            "name": self.name,
            "kind": "dino",
            "source": self._source,
            "revision": self._revision,
            "patch": self.patch,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @without_gradients
    def refine(
        self, pictures: Sequence[Tensor], maps: Sequence[Tensor], settings: Settings, seed: int = 0
    ) -> list[Tensor]:
        """See :meth:`Refiner.refine`. There is no noise and no chain: ``seed`` and ``refine_mode`` change nothing.

        The image is resized to whole patches, each side rounded down, however large it is: memory grows with the number
        of patches, time with its square. ``refine_max_patches`` sets a limit.

        Raises:
            ShapeError: pictures or maps of another form.
            RefinerError: weights that give NaN.
            ResourceError: memory ran out.
        """
        check_inputs(pictures, maps)
        results = []
        for picture, stack in zip(pictures, maps, strict=True):
            size = self._size((picture.shape[-2], picture.shape[-1]), settings)
            with convert_out_of_memory(f"refiner {self.name} at {size[0]}x{size[1]}", _ADVICE):
                features = self.features(picture, size, settings.refine_resize or "bilinear")
                grid = (size[0] // self.patch, size[1] // self.patch)
                refined = spread_by_affinity(stack, features, grid)
            check_finite(refined, self.name, self.dtype)
            results.append(refined.to(stack.device))
        return results

    @torch.inference_mode()
    def affinity(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """The affinity at another model's grid, for ``attention="proxy"``.

        The patch features are resized to that grid bilinearly; the affinity is made of them there.

        Source: arXiv 2411.13836; ``docs/method.md``, section 2, "Proxy attention".

        Args:
            images: [B, 3, H, W] in [0, 1].
            grid: (h, w).

        Returns:
            [B, h * w, h * w] float32, rows sum to 1.

        Raises:
            RefinerError: weights that give NaN.
        """
        size = self._size((images.shape[-2], images.shape[-1]), Settings())
        shape = (1, size[0] // self.patch, size[1] // self.patch, -1)
        made = []
        for image in images:
            planes = self.features(image, size).reshape(shape).permute(0, 3, 1, 2)
            resized = F.interpolate(planes, size=grid, mode="bilinear", align_corners=False)
            made.append(feature_affinity(resized[0].flatten(1).T))
        affinity = torch.stack(made)
        check_finite(affinity, self.name, self.dtype)
        return affinity

    @torch.inference_mode()
    def features(self, picture: Tensor, size: tuple[int, int], resize: str = "bilinear") -> Tensor:
        """Patch features of the last block after its norm.

        Args:
            picture: [3, H, W] in [0, 1].
            size: to which it is resized; multiples of the patch.
            resize: how.

        Returns:
            [size / patch squared, D] float32.
        """
        pixels = resize_picture(picture.to(self.device), size, resize)
        mean, std = (torch.tensor(v, device=self.device)[:, None, None] for v in (_MEAN, _STD))
        pixels = ((pixels - mean) / std)[None].to(self.dtype)
        # DINOv2 always fits its position table to the picture; ViT has to be told.
        fit = {} if self.model.config.model_type == "dinov2" else {"interpolate_pos_encoding": True}
        hidden: Tensor = self.model(pixel_values=pixels, **fit).last_hidden_state
        return hidden[0, 1:].float()  # the first is the class token

    def _size(self, image: tuple[int, int], settings: Settings) -> tuple[int, int]:
        """Input size of the network: as asked for, or the image's own in whole patches, each side rounded down."""
        given = settings.refine_size
        if given is not None:
            given = (given, given) if isinstance(given, int) else given
            if any(side % self.patch for side in given):
                near = [max(1, round(side / self.patch)) * self.patch for side in given]
                raise SettingsError(
                    f"refine_size: refiner {self.name} wants multiples of {self.patch}, "
                    f"got {given[0]}x{given[1]}; nearest is {near[0]}x{near[1]}"
                )
            return given
        rows, columns = (max(1, side // self.patch) for side in image)
        if settings.refine_max_patches is not None:
            rows, columns = limit_patches(rows, columns, settings.refine_max_patches)
        return rows * self.patch, columns * self.patch


def _positions(table: Tensor, patch: int, embeddings: Tensor, height: int, width: int) -> Tensor:
    """DINO's position table for an input of ``height`` by ``width`` pixels, [1, 1 + patches, D].

    The last three arguments are those of the method of ``transformers`` that it replaces. Resized in float32.
    """
    resized = interpolate_dino_positions(table[0].float(), (height // patch, width // patch))
    return resized.to(table.dtype)[None]


def _load(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModel

    try:
        with silence_transformers():
            model, info = AutoModel.from_pretrained(
                str(folder), dtype=dtype, local_files_only=True, output_loading_info=True
            )
    except MemoryError:
        raise
    except Exception as error:  # transformers, safetensors and pickle raise many kinds
        raise CheckpointError(f"{folder}: could not read the weights: {short_reason(error)}") from None
    # The pooler is not used, and DINO's checkpoints do not have one.
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} weights are missing, {missing[0]} first; get the checkpoint again"
        )
    return model.eval().requires_grad_(False)
