"""Stable Diffusion as a refiner: the self-attention maps of one denoising step."""

from cliper.refiners.diffusion.refiner import DiffusionRefiner

__all__ = ["DiffusionRefiner"]
