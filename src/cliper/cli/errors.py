"""Exit codes, and the one-line messages on standard error."""

from __future__ import annotations

import enum
import logging
import os
import sys
import traceback

import click

from cliper.errors import CliperError

__all__ = [
    "ExitCode",
    "OneLineHandler",
    "echo_error",
    "echo_status",
    "echo_warning",
    "exit_code",
    "is_quiet",
    "printable",
    "report_error",
]


class ExitCode(enum.IntEnum):
    """Exit codes of every command."""

    DONE = 0
    IMAGES_FAILED = 1  # some images failed, the others are done
    BAD_INPUT = 2  # wrong usage, bad input, or an error of the system that the user can fix
    DEFECT = 70  # EX_SOFTWARE in sysexits.h
    INTERRUPTED = 130  # 128 + SIGINT
    BROKEN_PIPE = 141  # 128 + SIGPIPE


def exit_code(error: BaseException) -> ExitCode:
    """Exit code of a command that ended with an exception."""
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return ExitCode.BROKEN_PIPE
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):  # raised by rich
        return ExitCode.BROKEN_PIPE
    if isinstance(error, CliperError | click.ClickException | OSError | MemoryError):
        return ExitCode.BAD_INPUT
    return ExitCode.DEFECT


def report_error(error: BaseException, *, debug: bool) -> ExitCode:
    """Print in one line why a command ended.

    Args:
        error: what the command raised.
        debug: print the traceback, too.

    Returns:
        The exit code.
    """
    code = exit_code(error)
    if code is ExitCode.BROKEN_PIPE:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python's last flush fails, too
        return code
    if isinstance(error, click.ClickException):
        if "\n" in error.format_message():  # a command without arguments shows its help
            error.show()
            return code
    elif debug and code in (ExitCode.BAD_INPUT, ExitCode.DEFECT):
        traceback.print_exception(error)
    hints = getattr(error, "__notes__", [])  # of cliper.runner.run
    if code is ExitCode.INTERRUPTED:
        hints = hints or ["files written so far are complete"]
    _echo("; ".join([_describe(error, code), *hints]))
    return code


def echo_error(text: str) -> None:
    """Print ``cliper: error: text`` as one line on standard error."""
    _echo(f"error: {text}")


def echo_warning(text: str) -> None:
    """Print ``cliper: warning: text`` as one line on standard error, unless the command is quiet."""
    if not is_quiet():
        _echo(f"warning: {text}")


def is_quiet() -> bool:
    """Whether only errors are printed: the level of the logger ``cliper``, which ``--quiet`` sets."""
    return logging.getLogger("cliper").level >= logging.ERROR


class OneLineHandler(logging.Handler):
    """Prints the records of the logger ``cliper`` on standard error, each as one line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, and the traceback of its exception."""
        if record.exc_info:
            traceback.print_exception(record.exc_info[1])
        text = " ".join(record.getMessage().split())
        if record.levelno >= logging.WARNING:
            echo_warning(text)
        else:
            _echo(text)


def echo_status(text: str) -> None:
    """Print ``cliper: text`` as one line on standard error."""
    _echo(text)


def printable(text: str) -> str:
    """The text as one line without control characters, which names of files may hold."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _echo(text: str) -> None:
    click.echo(printable(f"cliper: {text}"), err=True)


def _describe(error: BaseException, code: ExitCode) -> str:
    message = " ".join(str(error).split())
    if code is ExitCode.INTERRUPTED:
        return "interrupted"
    if code is ExitCode.DEFECT:
        return (
            f"unexpected {type(error).__name__}: {message or 'no message'} (run again with --debug for the traceback)"
        )
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context else ""
        message = f"{error.format_message()}{hint}"
    elif isinstance(error, MemoryError):
        message = "out of memory; use smaller images or a smaller model"
    elif isinstance(error, OSError) and not isinstance(error, CliperError):
        file = f": {error.filename!r}" if error.filename else ""
        message = f"the system refused: {error.strerror or error}{file}"
    return f"error: {message}"
