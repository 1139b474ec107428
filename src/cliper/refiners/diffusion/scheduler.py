"""The pipeline's scheduler: the time of a step, and noise for latents at that time."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cliper.checkpoints.validate import read_json
from cliper.errors import CheckpointError, RefinerError, reraise

__all__ = ["STEPS", "add_noise", "load_scheduler"]

STEPS = 50
"""The method's number of denoising steps, of which it runs one."""


def load_scheduler(folder: Path) -> Any:
    """The pipeline's own scheduler, set to the method's number of steps.

    Args:
        folder: of the pipeline.

    Raises:
        CheckpointError: a scheduler that diffusers does not know, that cannot add noise to an image, or whose times
            are not those that a UNet of Stable Diffusion was trained with.
    """
    import diffusers

    path = folder / "scheduler" / "scheduler_config.json"
    config = read_json(path, "the pipeline needs it")
    name = str(config.get("_class_name"))
    # Schedulers raise many kinds of errors for the configuration of another one, or without an optional library.
    with reraise(Exception, CheckpointError, f"{path}: {name} cannot add noise at one of {STEPS} steps"):
        scheduler_class: Any = getattr(diffusers, name, None)
        if not hasattr(scheduler_class, "add_noise"):
            raise CheckpointError(f"{path}: expected a scheduler that adds noise, such as PNDMScheduler, got {name!r}")
        scheduler = scheduler_class.from_config(config)
        scheduler.set_timesteps(STEPS)
        trained = int(scheduler.config.num_train_timesteps)
        times = [float(time) for time in scheduler.timesteps]
        add_noise(scheduler, torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2), 0)
    wrong = [time for time in times if not 0 <= time < trained]
    if wrong:
        raise CheckpointError(
            f"{path}: expected a scheduler of times from 0 to {trained - 1}, such as PNDMScheduler, "
            f"got {name}, which has t = {wrong[0]:g}"
        )
    return scheduler


def add_noise(scheduler: Any, latents: Tensor, noise: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Latents as they are before a denoising step, scaled as the UNet takes them, and the time of that step.

    Args:
        scheduler: it is not changed (some schedulers count calls).
        latents, noise: float32 [B, 4, h, w].
        step: index into the scheduler's times. (Schedulers of second order list most times twice.)

    Raises:
        RefinerError: the scheduler has no such step.
    """
    if not 0 <= step < len(scheduler.timesteps):
        raise RefinerError(
            f"refine_step: {type(scheduler).__name__} has steps 0 to {len(scheduler.timesteps) - 1}, got {step}"
        )
    scheduler = copy.deepcopy(scheduler)
    timestep: Tensor = scheduler.timesteps[step]
    noisy = scheduler.add_noise(latents, noise, timestep.expand(len(latents)))
    return scheduler.scale_model_input(noisy, timestep), timestep
