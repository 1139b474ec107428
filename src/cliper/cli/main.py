"""The command ``cliper``: its subcommands, exit codes and one-line messages."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import click

from cliper import __version__
from cliper.cli.batch import batch
from cliper.cli.benchmarks import benchmarks
from cliper.cli.data import data
from cliper.cli.doctor import doctor
from cliper.cli.errors import ExitCode, OneLineHandler, echo_warning, report_error
from cliper.cli.evaluate import evaluate
from cliper.cli.export import export
from cliper.cli.help import CommandGroup
from cliper.cli.models import models
from cliper.cli.report import report
from cliper.cli.segment import segment
from cliper.cli.serve import demo, serve
from cliper.cli.tune import tune

__all__ = ["cli", "main"]

_EXAMPLES = """\
cliper segment --example
cliper segment photo.jpg -c "dog; cat"
cliper batch photos -c "dog; cat" -o results"""


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=_EXAMPLES,
)
@click.version_option(__version__, prog_name="cliper", help="Show the version and exit.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error. Can stand anywhere on the line.")
def cli(debug: bool) -> None:
    """Segment images by words, without training: name the classes, get a label map.

    Exit codes: 0 done, 1 some images failed, 2 wrong usage or bad input, 70 a defect of the program, 130 interrupted.
    """


for command in (segment, batch, evaluate, report, tune, export, serve, demo, models, data, benchmarks, doctor):
    cli.add_command(command)


def main() -> None:
    """Entry point. :class:`cliper.cli.errors.ExitCode` has the exit codes."""
    # Python sets a stream to None that the shell closed (cliper ... >&-).
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    # A name that the terminal's encoding lacks must not end the command.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    if "_CLIPER_COMPLETE" in os.environ:  # shell completion
        cli.main(prog_name="cliper")
    code = run(sys.argv[1:])
    if code == ExitCode.INTERRUPTED:  # Python's own exit aborts if threads of PyTorch still run, after a second Ctrl-C
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code."""
    debug = "--debug" in arguments
    arguments = (["--debug"] if debug else []) + [a for a in arguments if a != "--debug"]
    _configure_warnings(debug)
    try:
        # Not cli.main, which hides a closed pipe and an interrupt, in a way that depends on click's version.
        with cli.make_context("cliper", arguments) as context:
            code = cli.invoke(context)
    except click.exceptions.Exit as stop:  # of --help and --version
        return stop.exit_code
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        return report_error(error, debug=debug)
    return code if isinstance(code, int) else 0


def _configure_warnings(debug: bool) -> None:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        echo_warning(" ".join(str(message).split()))

    warnings.showwarning = show
    logger = logging.getLogger("cliper")
    if not logger.handlers:
        logger.addHandler(OneLineHandler())
    if isinstance(logger.handlers[0], OneLineHandler):  # not set by an application
        logger.setLevel(logging.DEBUG if debug else logging.WARNING)
