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

from cliper.checkpoints import resolve
from cliper.errors import SettingsError
from cliper.ops.compensation import QueryKey, compensate_query_key, resize_query_key
from cliper.refiners.base import Affinity, Refiner, resize_image
from cliper.refiners.diffusion.empty_prompt import empty_prompt
from cliper.refiners.diffusion.loading import check_pipeline, load_tiny_encoder, load_unet, load_vae_encoder
from cliper.refiners.diffusion.scheduler import add_noise, load_scheduler
from cliper.refiners.diffusion.unet_attention import capture_query_key, count_maps, find_layers, tokens_grid
from cliper.setting_checks import check_seed
from cliper.settings import Settings

__all__ = ["DiffusionRefiner"]

_LOG = logging.getLogger("cliper.refiners")

METHOD_SIZE = (512, 512)
XL_SIZE = (1024, 1024)  # for which Stable Diffusion XL was trained
METHOD_STEP = 45
METHOD_TIMESTEP = 101  # of PNDM, as Stable Diffusion's pipelines set it up, at that step

# Images that go through the networks together. On a CPU more at once only need more memory, and one at a time
# gives the same bits whatever the batch.
CPU_BATCH, GPU_BATCH = 1, 8


class DiffusionRefiner(Refiner):
    """A Stable Diffusion pipeline, of which only VAE encoder, UNet and scheduler are in memory.

    Args:
        folder: of the pipeline, in diffusers' layout.
        name: for messages.
        device: where to run.
        dtype: of the networks; softmax, column maxima, row sums and the chain are float32 in any case.

    Raises:
        CheckpointError: a folder that is not such a pipeline, or is not complete.
    """

    concurrent = False
    advice = "lower refine_size, segment fewer images at once, or use a smaller refiner such as dino-s16"

    def __init__(self, folder: Path, *, name: str, device: torch.device, dtype: torch.dtype) -> None:
        batch_size = CPU_BATCH if device.type == "cpu" else GPU_BATCH
        super().__init__(name=name, device=device, dtype=dtype, patch_size=8, batch_size=batch_size)
        check_pipeline(folder)
        self.scheduler = load_scheduler(folder)
        # The prompt before the networks: its encoder, of up to 1.4 GB, is freed before the UNet is loaded.
        prompt, pooled = empty_prompt(folder)
        self.prompt = prompt.to(device, dtype)
        self._pooled = None if pooled is None else pooled.to(device, dtype)  # of Stable Diffusion XL
        # The VAE of Stable Diffusion XL overflows in float16.
        vae_dtype = torch.float32 if pooled is not None and dtype == torch.float16 else dtype
        self.vae: Any = load_vae_encoder(folder, device=device, dtype=vae_dtype)
        self.unet: Any = load_unet(folder, self.prompt, device=device, dtype=dtype)
        self._tiny_vaes: dict[str, Any] = {}
        # The UNet's attention processors are replaced during a call: one thread at a time.
        self._lock = threading.Lock()
        timestep = int(self.scheduler.timesteps[METHOD_STEP])
        if timestep != METHOD_TIMESTEP:
            _LOG.warning(
                "refiner %s: its scheduler (%s) has t = %d at step %d of 50, where the method has %d",
                name, type(self.scheduler).__name__, timestep, METHOD_STEP, METHOD_TIMESTEP,
            )  # fmt: skip

    def prepare(self, settings: Settings) -> None:
        """Load the tiny VAE of ``refine_vae``, if it is one."""
        if settings.refine_vae != "full":
            self._load_tiny_vae(settings.refine_vae)

    @torch.inference_mode()
    def encode_latents(
        self, image: Tensor, size: tuple[int, int], resize: str = "nearest", vae: str = "full"
    ) -> Tensor:
        """The image's latents: mean of the VAE's posterior, times the pipeline's scaling factor.

        Args:
            image: [3, H, W] in [0, 1].
            size: to which it is resized; multiples of 8.
            resize: how.
            vae: ``"full"``, the pipeline's own, or the name of a tiny one, whose output is the latents.

        Returns:
            [1, 4, size / 8, size / 8] in the refiner's dtype.

        Raises:
            CheckpointError: the tiny VAE is missing, damaged, of another kind, or cannot be downloaded.
        """
        pixels = resize_image(image.to(self.device), size, resize)[None] * 2 - 1
        if vae != "full":
            tiny = self._load_tiny_vae(vae)
            output: Tensor = tiny.encoder(pixels.to(self.dtype).contiguous()) * tiny.config.scaling_factor
            return output
        # An image cut from [H, W, 3] is in channels-last memory, where norms and convolutions are less accurate.
        moments = self.vae.encoder(pixels.to(self.vae.dtype).contiguous())
        if self.vae.quant_conv is not None:
            moments = self.vae.quant_conv(moments)
        mean = moments.chunk(2, dim=1)[0]
        config = self.vae.config
        latents: Tensor = (mean - (config.shift_factor or 0)) * config.scaling_factor
        return latents.to(self.dtype)

    def add_noise(self, latents: Tensor, step: int, seed: int | None) -> tuple[Tensor, Tensor]:
        """Latents as they are before that denoising step, and its time.

        The noise depends on shape and seed only: it is the same for every image. Without a seed it is 0: the latents
        are only scaled as for that step.

        Raises:
            RefinerError: the scheduler has no such step.
        """
        if seed is None:
            noise = torch.zeros(latents.shape[1:])
        else:
            noise = torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(seed))
        noise = noise.to(latents.device).expand_as(latents)
        noisy, timestep = add_noise(self.scheduler, latents.float(), noise, step)
        return noisy.to(self.dtype), timestep.to(latents.device)

    def _default_size(self, image_size: tuple[int, int], settings: Settings) -> tuple[int, int]:
        return METHOD_SIZE if self._pooled is None else XL_SIZE

    def _added_inputs(self, size: tuple[int, int], count: int) -> dict[str, Tensor] | None:
        """Further inputs of Stable Diffusion XL's UNet: the pooled prompt, and the size of an image that is not cut."""
        if self._pooled is None:
            return None
        sizes = torch.tensor([[*size, 0, 0, *size]], device=self.device, dtype=self.dtype)
        return {"text_embeds": self._pooled.expand(count, -1), "time_ids": sizes.expand(count, -1)}

    def _encode_batch(
        self, images: Sequence[Tensor], size: tuple[int, int], settings: Settings, seed: int
    ) -> list[Affinity]:
        seed = check_seed(seed)
        count = count_maps(self.unet, find_layers(self.unet, settings.refine_layers))
        index = settings.refine_map_index
        if settings.refine_mode == "selected" and index >= count:  # before the networks run
            raise SettingsError(f"refine_map_index: there are {count} attention maps, 0 to {count - 1}; got {index}")
        with self._lock:
            resize = settings.refine_resize or "nearest"
            latents = torch.cat([self.encode_latents(image, size, resize, settings.refine_vae) for image in images])
            noisy, timestep = self.add_noise(latents, settings.refine_step, seed if settings.refine_noise else None)
            added = self._added_inputs(size, len(images))
            captured = capture_query_key(self.unet, noisy, timestep, self.prompt, settings.refine_layers, added)
        latent_size = (latents.shape[-2], latents.shape[-1])
        return [_one_resolution(layers, latent_size) for layers in captured]

    def _apply(self, affinity: Affinity, maps: Tensor, settings: Settings) -> Tensor:
        assert isinstance(affinity.values, tuple)
        return compensate_query_key(
            maps.to(self.device, torch.float32),
            affinity.values,
            settings.map_threshold if settings.refine_threshold is None else settings.refine_threshold,
            settings.refine_mode,
            settings.refine_map_index,
            size=affinity.grid,
            balance=settings.refine_balance,
        )

    def _load_tiny_vae(self, name: str) -> Any:
        if name not in self._tiny_vaes:
            folder = resolve(name, "vae").folder
            channels = self.unet.config.in_channels
            self._tiny_vaes[name] = load_tiny_encoder(folder, channels, device=self.device, dtype=self.dtype)
        return self._tiny_vaes[name]


def _one_resolution(layers: Sequence[QueryKey], latent_size: tuple[int, int]) -> Affinity:
    """The affinity of layers at the finest of their resolutions."""
    grids = [tokens_grid(latent_size, layer.query.shape[-2]) for layer in layers]
    finest = max(grids)
    return Affinity(tuple(map(resize_query_key, layers, grids, [finest] * len(layers))), finest)
