"""The command ``cliper``: its subcommands, and what a person sees when something goes wrong."""

from __future__ import annotations

import io
import logging
import sys
import traceback
import warnings
from typing import Any

import click

from cliper import __version__
from cliper.cli.batch import batch
from cliper.cli.benchmarks import benchmarks
from cliper.cli.data import data
from cliper.cli.demo import demo
from cliper.cli.doctor import doctor
from cliper.cli.evaluate import evaluate
from cliper.cli.models import models
from cliper.cli.segment import segment
from cliper.cli.serve import serve
from cliper.errors import CliperError

__all__ = ["cli", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="cliper")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Open-vocabulary semantic segmentation without training: words and a picture in, a label map out."""


cli.add_command(segment)
cli.add_command(batch)
cli.add_command(models)
cli.add_command(data)
cli.add_command(benchmarks)
cli.add_command(evaluate)
cli.add_command(serve)
cli.add_command(demo)
cli.add_command(doctor)


def main() -> None:
    """Entry point.

    Exit codes: 0 done, 1 something unexpected, 2 bad input or usage, 130 interrupted, 141 whoever read the
    output has gone.
    """
    # A name that the terminal's encoding lacks is no reason to stop half-way.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code."""
    debug = "--debug" in arguments
    # Anywhere on the line is right: nobody remembers which side of the subcommand it belongs to.
    arguments = (["--debug"] if debug else []) + [a for a in arguments if a != "--debug"]
    _one_line_warnings(debug)
    try:
        code = cli.main(arguments, prog_name="cliper", standalone_mode=False)
    except click.ClickException as error:
        if "\n" in error.format_message():  # a command without arguments shows its help
            error.show()
        else:
            context = getattr(error, "ctx", None)
            hint = f" (see {context.command_path} --help)" if context else ""
            _say(f"error: {error.format_message()}{hint}")
        return error.exit_code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        _say("interrupted; files that were finished are whole")
        return 130
    except SystemExit:  # how click and rich leave when whoever read the output has gone
        return 141
    except CliperError as error:
        if debug:
            traceback.print_exc()
        _say(f"error: {' '.join(str(error).split())}")
        return 2
    except OSError as error:  # standard output on a full disk, say: nothing that this package could mend
        if debug:
            traceback.print_exc()
        place = f": {error.filename!r}" if error.filename else ""
        _say(f"error: the system refused: {error.strerror or error}{place}")
        return 2
    except Exception as error:  # anything else is a defect; a traceback only where it is asked for
        if debug:
            traceback.print_exc()
        reason = " ".join(str(error).split()) or "no message"
        _say(f"unexpected {type(error).__name__}: {reason} (run again with --debug for the traceback)")
        return 1
    return code if isinstance(code, int) else 0


def _say(text: str) -> None:
    click.echo(f"cliper: {text}", err=True)


def _one_line_warnings(debug: bool) -> None:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        _say(f"warning: {' '.join(str(message).split())}")

    warnings.showwarning = show
    logger = logging.getLogger("cliper")
    if not logger.handlers:
        logger.addHandler(_OneLine())
    if isinstance(logger.handlers[0], _OneLine):  # nobody else's
        logger.setLevel(logging.DEBUG if debug else logging.WARNING)


class _OneLine(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            traceback.print_exception(record.exc_info[1])
        _say(f"warning: {' '.join(record.getMessage().split())}")
