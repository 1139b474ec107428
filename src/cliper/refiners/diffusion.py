"""Stable Diffusion as a refiner: the self-attention of one denoising step.

Source: arXiv 2411.13836, "fine-grained compensation"; ``docs/method.md``, section 3.
"""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cliper.devices import convert_out_of_memory
from cliper.errors import SettingsError
from cliper.ops.compensation import QueryKey, compensate_query_key
from cliper.refiners.base import check_finite, check_inputs, resize_picture, without_gradients
from cliper.refiners.capture import capture_heads, count_maps, find_layers, layer_names, tokens_grid
from cliper.refiners.pipeline import check_parts
from cliper.refiners.prompt import empty_prompt
from cliper.refiners.schedule import load_scheduler, noised
from cliper.refiners.weights import load_unet, load_vae_encoder
from cliper.settings import Settings, check_seed

__all__ = ["DiffusionRefiner"]

_LOG = logging.getLogger("cliper.refiners")

METHOD_SIZE = 512
METHOD_STEP = 45
METHOD_TIMESTEP = 101  # what PNDM, as Stable Diffusion's pipelines set it up, has at that step

# Pictures that go through the networks together. On a CPU more at once only need more memory, and one at a time
# gives the same bits whatever the batch.
BATCH = {"cpu": 1}
OTHER_BATCH = 8

_ADVICE = "lower refine_size, segment fewer pictures at once, or use a smaller refiner such as dino-s16"


class DiffusionRefiner:
    """A Stable Diffusion pipeline, of which only VAE encoder, UNet and scheduler are in memory.

    Args:
        folder: of the pipeline, in diffusers' layout.
        name: for messages and reports.
        device: where to run.
        dtype: of the networks; softmax, column maxima, row sums and the chain are float32 in any case.
        source, revision: for :meth:`describe`.

    Raises:
        CheckpointError: a folder that is no such pipeline, or is not whole.
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
        self.batch = BATCH.get(device.type, OTHER_BATCH)
        self._source, self._revision = source, revision
        check_parts(folder)
        with convert_out_of_memory(f"loading refiner {name}", "use a smaller refiner such as dino-s16, or none"):
            self._scheduler = load_scheduler(folder)
            # The prompt before the networks: its encoder, of up to 1.4 GB, is gone before the UNet comes.
            self.prompt = empty_prompt(folder).to(device, dtype)
            self.vae: Any = load_vae_encoder(folder, device=device, dtype=dtype)
            self.unet: Any = load_unet(folder, self.prompt, device=device, dtype=dtype)
        # Attention processors are shared: one thread at a time.
        self._lock = threading.RLock()
        timestep = int(self._scheduler.timesteps[METHOD_STEP])
        if timestep != METHOD_TIMESTEP:
            _LOG.warning(
                "refiner %s: its scheduler (%s) has t = %d at step %d of 50, where the method has %d",
                name, type(self._scheduler).__name__, timestep, METHOD_STEP, METHOD_TIMESTEP,
            )  # fmt: skip

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the self-attention layers that ``refine_layers`` can choose from."""
        return tuple(layer_names(self.unet))

    def describe(self) -> dict[str, Any]:
        """See :meth:`Refiner.describe`."""
        return {
            "name": self.name,
            "kind": "diffusion",
            "source": self._source,
            "revision": self._revision,
            "scheduler": type(self._scheduler).__name__,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @without_gradients
    def refine(
        self, pictures: Sequence[Tensor], maps: Sequence[Tensor], settings: Settings, seed: int = 0
    ) -> list[Tensor]:
        """See :meth:`Refiner.refine`.

        Raises:
            ShapeError: pictures or maps of another form.
            SettingsError: a size that is no multiple of 8, a ``refine_map`` that none of the maps is, a seed out of
                range.
            RefinerError: no such layer, layers of different resolutions, or weights that give NaN.
            ResourceError: memory ran out.
        """
        check_inputs(pictures, maps)
        seed = check_seed(seed)
        size = _size(settings.refine_size)
        self._check_maps(settings)  # before any work
        refined: list[Tensor] = []
        with self._lock, convert_out_of_memory(f"refiner {self.name} at {size[0]}x{size[1]}", _ADVICE):
            for first in range(0, len(pictures), self.batch):
                some = slice(first, first + self.batch)
                refined += self._refine(pictures[some], maps[some], settings, size, seed)
        return refined

    def _refine(
        self,
        pictures: Sequence[Tensor],
        maps: Sequence[Tensor],
        settings: Settings,
        size: tuple[int, int],
        seed: int,
    ) -> list[Tensor]:
        latents = torch.cat([self.encode(p, size, settings.refine_resize or "nearest") for p in pictures])
        noisy, timestep = self.add_noise(latents, settings.refine_step, seed)
        heads = capture_heads(self.unet, noisy, timestep, self.prompt, settings.refine_layers)
        latent = (latents.shape[-2], latents.shape[-1])
        return [self.compensate(stack, layers, latent, settings) for stack, layers in zip(maps, heads, strict=True)]

    @torch.inference_mode()
    def compensate(
        self, maps: Tensor, layers: Sequence[QueryKey], latent: tuple[int, int], settings: Settings
    ) -> Tensor:
        """The chain, or what ``refine_mode`` says, of captured heads, applied to one picture's class maps.

        Args:
            maps: [C, h, w].
            layers: as :func:`capture_heads` gives them.
            latent: height and width of the latents that they were captured with.
            settings: as for :meth:`refine`.

        Returns:
            [C, S, S'] float32 on the device of the maps.

        Raises:
            RefinerError: weights that gave NaN.
            ShapeError: layers of different resolutions.
            SettingsError: a ``refine_map`` that none of the maps is.
        """
        threshold = settings.map_threshold if settings.refine_threshold is None else settings.refine_threshold
        with self._lock:
            refined = compensate_query_key(
                maps.to(self.device, torch.float32),
                layers,
                threshold,
                settings.refine_mode,
                settings.refine_map,
                size=tokens_grid(latent, layers[0].query.shape[-2]),
            )
        check_finite(refined, self.name, self.dtype)
        return refined.to(maps.device)

    @torch.inference_mode()
    def encode(self, picture: Tensor, size: tuple[int, int], resize: str = "nearest") -> Tensor:
        """The picture's latents: mean of the VAE's posterior, times the pipeline's scaling factor.

        Args:
            picture: [3, H, W] in [0, 1].
            size: to which it is resized; multiples of 8.
            resize: how.

        Returns:
            [1, 4, size / 8, size / 8] in the refiner's dtype.
        """
        pixels = resize_picture(picture.to(self.device), size, resize)[None] * 2 - 1
        # An image cut from [H, W, 3] is in channels-last memory, where norms and convolutions are less accurate.
        pixels = pixels.to(self.dtype).contiguous()
        with self._lock:
            moments = self.vae.encoder(pixels)
            if self.vae.quant_conv is not None:
                moments = self.vae.quant_conv(moments)
        mean = moments.chunk(2, dim=1)[0]
        config = self.vae.config
        latents: Tensor = (mean - (config.shift_factor or 0)) * config.scaling_factor
        return latents

    def add_noise(self, latents: Tensor, step: int, seed: int) -> tuple[Tensor, Tensor]:
        """Latents as they are before that denoising step, and its time.

        Every picture gets the same noise, that of the seed: it depends on nothing but shape and seed.

        Raises:
            RefinerError: the scheduler has no such step.
        """
        noise = torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(seed))
        noise = noise.to(latents.device).expand_as(latents)
        noisy, timestep = noised(self._scheduler, latents.float(), noise, step)
        return noisy.to(self.dtype), timestep.to(latents.device)

    def _check_maps(self, settings: Settings) -> None:
        """Whether the UNet has the maps that are asked for.

        Raises:
            RefinerError: no such layers, or of different resolutions.
            SettingsError: a ``refine_map`` that none of the maps is.
        """
        count = count_maps(self.unet, find_layers(self.unet, settings.refine_layers))
        if settings.refine_mode == "selected" and not -count <= settings.refine_map < count:
            raise SettingsError(
                f"refine_map: there are {count} attention maps, 0 to {count - 1}; got {settings.refine_map}"
            )


def _size(given: int | tuple[int, int] | None) -> tuple[int, int]:
    height, width = (given, given) if isinstance(given, int) else given or (METHOD_SIZE, METHOD_SIZE)
    if height % 8 or width % 8:
        near = [max(64, round(side / 8) * 8) for side in (height, width)]
        raise SettingsError(
            f"refine_size: Stable Diffusion wants multiples of 8, got {height}x{width}; nearest is {near[0]}x{near[1]}"
        )
    return height, width
