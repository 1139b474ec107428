"""What ``cliper batch`` and ``cliper evaluate`` share: the engine and the run options."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cliper.cli.help import option, option_group

if TYPE_CHECKING:
    from cliper.model_config import ModelConfig
    from cliper.runner.run import Engine, Run, RunOptions
    from cliper.runner.task import Task
    from cliper.settings import Settings

__all__ = ["engine_options", "log_stats", "make_engine", "read_model_config", "read_run_options", "run_options"]

_LOG = logging.getLogger("cliper.runs")

run_options = option_group(
    "Input and output",
    option("--resume", "Continue the run in OUT; images that failed stay failed."),
    option("--retry-failed", "Continue the run in OUT, and try images that failed again."),
    option("--overwrite", "Start again; results of the run in OUT are removed."),
)
"""``--resume``, ``--retry-failed`` and ``--overwrite``."""

engine_options = option_group(
    "Execution",
    option("--engine", "Execution engine: this machine, or Ray.", type=click.Choice(["local", "ray"]), default="local"),
    option(
        "--address HOST:PORT",
        "Address of a Ray cluster, or auto; for --engine ray.",
        show_default="start a local Ray instance",
    ),
    option(
        "--workers N",
        "Number of models, each in a process with a GPU or a share of the processors.",
        type=click.IntRange(min=1),
        show_default="1; with Ray one per GPU or machine",
    ),
    option(
        "--threads N",
        "Threads of each worker that read images, and as many that write results.",
        type=click.IntRange(min=1),
        show_default="up to 4",
    ),
)
"""``--engine``, ``--address``, ``--workers`` and ``--threads``."""


def read_run_options(options: dict[str, Any], *, stop_on_error: bool = False, temporary: bool = False) -> RunOptions:
    """The options of :data:`run_options`.

    Raises:
        UsageError: options that exclude each other, or that another one needs.
    """
    from cliper.runner.run import RunOptions

    resume, retry, overwrite = (options[name] for name in ("resume", "retry_failed", "overwrite"))
    if (resume or retry) and overwrite:
        raise click.UsageError("expected --resume or --overwrite, got both; give one")
    if options["address"] and options["engine"] != "ray":
        raise click.UsageError("--address: it is for --engine ray; give that too")
    return RunOptions(resume, retry, overwrite, stop_on_error, temporary)


def make_engine(task: Task, options: dict[str, Any]) -> Engine:
    """The engine of :data:`engine_options`; models are loaded when it is entered."""
    from cliper.runner.engines import processes_engine, ray_engine, threads_engine

    workers = options["workers"]
    threads = options["threads"] or min(4, os.cpu_count() or 1)
    if options["engine"] == "ray":
        address, cpu_only = options["address"], options["device"] == "cpu"
        return ray_engine(task, workers=workers, threads=threads, address=address, cpu_only=cpu_only)
    if workers is not None and workers > 1:
        return processes_engine(task, workers=workers, threads=threads, device=options["device"])
    return threads_engine(task, threads=threads)


def read_model_config(options: dict[str, Any], settings: Settings) -> ModelConfig:
    """The models of :data:`cliper.cli.options.model_options`.

    Folders and files get absolute paths: workers and later runs may have another current folder.
    """
    from cliper.checkpoints.resolve import split_activation
    from cliper.checkpoints.validate import is_weight_file
    from cliper.model_config import ModelConfig

    def absolute(name: str) -> str:
        place = Path(split_activation(name)[0]).expanduser()
        return str(Path(name).expanduser().absolute()) if place.is_dir() or is_weight_file(place, "clip") else name

    refiner = None if options["refiner"] in (None, "none") else absolute(options["refiner"])
    vae = settings.refine_vae if settings.refine_vae == "full" else absolute(settings.refine_vae)
    settings = settings.replace(refine_vae=vae, proxy_model=absolute(settings.proxy_model))
    return ModelConfig(
        absolute(str(options["model"])), settings, refiner, options["device"], options["dtype"], options["seed"]
    )


def log_stats(run: Run) -> None:
    """Log the time that models were used and waited, summed over all workers, and the largest memory of one."""
    stats = run.stats
    memory = ", ".join(f"{size / 2**30:.2f} GiB {kind}" for kind, size in stats.peak_memory.items())
    _LOG.info(
        "models %.1f s, waiting for images %.1f s; memory at most: %s",
        stats.model_seconds,
        stats.waiting_seconds,
        memory or "unknown",
    )
