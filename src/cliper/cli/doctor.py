"""``cliper doctor``: what this machine has, and whether the package works on it."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import click

from cliper import __version__
from cliper.cli.errors import ExitCode, exit_code, is_quiet
from cliper.cli.help import GroupedCommand
from cliper.cli.options import message_options
from cliper.errors import CliperError, OutputError

__all__ = ["doctor"]

# Extra of pyproject.toml -> a module that it installs.
_EXTRAS = {
    "coco": "pycocotools",
    "heif": "pillow_heif",
    "s3": "s3fs",
    "scale": "ray",
    "server": "fastapi",
    "supervision": "supervision",
    "video": "av",
}
_PACKAGES = ("torch", "transformers", "diffusers", "huggingface_hub", "safetensors", "pillow", "numpy")


@click.command(cls=GroupedCommand, epilog="cliper doctor")
@message_options
def doctor() -> int:
    """Check the installation and the bundled model.

    It prints the versions of packages, and checks devices, cache folders, the bundled weights and a segmentation. The
    exit code is 2 if a check fails, and 70 if it fails in an unexpected way.
    """
    if not is_quiet():
        _print_packages()
    return max((_run_check(name, check) for name, check in _CHECKS.items()), default=ExitCode.DONE)


def _print_packages() -> None:
    click.echo(f"cliper {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for package in _PACKAGES:
        try:
            click.echo(f"  {package} {version(package)}")
        except PackageNotFoundError:
            click.echo(f"  {package} is missing: pip install {package}")
    missing = [extra for extra, module in _EXTRAS.items() if find_spec(module) is None]
    click.echo(f"  extras: {', '.join(extra for extra in _EXTRAS if extra not in missing) or 'none'}")
    if missing:
        click.echo(f"  extras that are not installed: {', '.join(missing)} (pip install 'cliper[{missing[0]}]')")


def _run_check(name: str, check: Callable[[], str]) -> ExitCode:
    try:
        found = check()
        if not is_quiet():
            click.echo(f"ok      {name}: {found}")
    except Exception as error:  # the other checks still run
        kind = "" if isinstance(error, CliperError) else f"{type(error).__name__}: "
        click.echo(f"failed  {name}: {kind}{' '.join(str(error).split())}")
        return exit_code(error)
    return ExitCode.DONE


def _devices() -> str:
    import torch

    names = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps (Apple GPU; only with --device mps)")
    cpu = f"cpu, {torch.get_num_threads()} threads of {os.cpu_count()} processors"
    return ", ".join([*names, cpu])


def _cache() -> str:
    from cliper.cache import cache_folder

    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"expected a cache folder that can be written, got {folder} ({error.strerror}); set CLIPER_CACHE"
        ) from None
    return str(folder)


def _hub() -> str:
    from huggingface_hub import constants

    offline = " (HF_HUB_OFFLINE is set: nothing is fetched)" if constants.HF_HUB_OFFLINE else ""
    return f"{Path(constants.HF_HUB_CACHE)}{offline}"


def _bundled() -> str:
    from cliper.checkpoints import verify_checkpoint

    report = verify_checkpoint("mini")
    if report.problems:
        raise CliperError(f"{report.problems[0]}; install the package again")
    return f"{report.tensors} tensors, checksums right"


def _segments() -> str:
    import time

    from cliper.examples import EXAMPLE_CLASSES, example_photo
    from cliper.segmenter import Segmenter

    segmenter = Segmenter.from_pretrained()
    started = time.perf_counter()
    result = segmenter(example_photo(), EXAMPLE_CLASSES)
    seconds = time.perf_counter() - started
    found = [name for name, area in result.areas.items() if area > 0]
    if not found:
        raise CliperError("expected the example photo's classes to be found, got none; install the package again")
    return f"found {', '.join(found)} in the example photo in {seconds:.2f} s"


_CHECKS: dict[str, Callable[[], str]] = {
    "devices": _devices,
    "cache": _cache,
    "hub cache": _hub,
    "bundled model": _bundled,
    "segmentation": _segments,
}
