"""Which models and settings a run uses, as plain values that can be sent to other processes."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cliper.settings import Settings

if TYPE_CHECKING:
    from cliper.segmenter import Segmenter

__all__ = ["ModelConfig", "concurrency"]

_MAX_CONCURRENCY = 8  # bounds the memory; on more cores the operations of each image are divided

_LOG = logging.getLogger("cliper.model_config")


@dataclass(frozen=True)
class ModelConfig:
    """The arguments of :meth:`cliper.Segmenter.from_pretrained`; its settings are complete."""

    model: str
    settings: Settings
    refiner: str | None = None
    device: str | None = None
    dtype: str | None = None
    seed: int = 0

    def load(self, device: str | None = None) -> Segmenter:
        """The segmenter, on ``device`` if one is given, with all weights that its settings need.

        Raises as :meth:`cliper.Segmenter.from_pretrained`.
        """
        from cliper.segmenter import Segmenter

        started = time.perf_counter()
        segmenter = Segmenter.from_pretrained(
            self.model,
            refiner=self.refiner,
            settings=self.settings,
            device=device or self.device,
            dtype=self.dtype,
            seed=self.seed,
        )
        if segmenter.refiner is not None:
            segmenter.refiner.prepare(self.settings)
        where = segmenter.encoder.device
        _LOG.info("model %s on %s; ready in %.2f s", segmenter.checkpoint, where, time.perf_counter() - started)
        given = {name: value for name, value in self.settings.to_dict().items() if value is not None}
        _LOG.info("settings: %s", ", ".join(f"{name} {value}" for name, value in given.items()))
        return segmenter

    @property
    def tiny_vae(self) -> str | None:
        """The VAE that the refiner loads in place of its own; None if there is none, or the refiner has no VAE."""
        from cliper.refiners import refiner_kind

        vae = self.settings.refine_vae
        return vae if vae != "full" and refiner_kind(self.refiner or "none") == "diffusion" else None

    def to_dict(self) -> dict[str, Any]:
        """The values, with the device's type, the checksums of the weights, and versions.

        Raises:
            CliperError: a model that does not exist or cannot be fetched.
        """
        from cliper.devices import resolve_device
        from cliper.provenance import checkpoint_record, versions

        vae = self.tiny_vae
        return {
            "model": checkpoint_record(self.model),
            "refiner": None if self.refiner is None else checkpoint_record(self.refiner, refiner=True) or self.refiner,
            **({"refine_vae": checkpoint_record(vae, kind="vae")} if vae else {}),
            "settings": self.settings.to_dict(),
            "device": resolve_device(self.device).type,
            "dtype": self.dtype or "float32",
            "seed": self.seed,
            "versions": {name: versions()[name] for name in ("cliper", "torch", "transformers", "diffusers")},
        }


def concurrency(segmenter: Segmenter) -> int:
    """How many images to segment at once, in threads of one process.

    On a CPU one for each core: cores that share the operations of one image wait for each other after each of them,
    which makes small encoders a third slower (``benchmarks/batch_throughput.py``).
    """
    import torch

    if segmenter.encoder.device.type != "cpu" or not getattr(segmenter.refiner, "concurrent", True):
        return 1
    return min(_MAX_CONCURRENCY, torch.get_num_threads())
