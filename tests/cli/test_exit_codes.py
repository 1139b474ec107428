"""Exit codes of every command, in a process of its own as a user starts it.

0 done, 1 some images failed, 2 wrong usage or bad input, 70 a defect, 130 interrupted, 141 closed pipe. The servers'
exit codes after signals are tests/server's.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import cliper
from cliper.cli.errors import ExitCode, exit_code
from cliper.errors import OutputError
from dataset_trees import build_sources, build_tree
from dataset_trees.own import own_arguments, own_data
from runs import said, start

Draw = Callable[..., Image.Image]


def run(*arguments: object, **environment: str) -> tuple[int, str]:
    """Run ``cliper``; its exit code and standard error."""
    process = start(*arguments, env={**os.environ, "OMP_NUM_THREADS": "1", **environment})
    _, errors = process.communicate(timeout=240)
    return process.returncode, errors


def code_path(folder: Path) -> str:
    """``PYTHONPATH`` with a folder before everything else."""
    return os.pathsep.join([str(folder), str(Path(cliper.__file__).parents[1])])


# --- 0: done ------------------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["models", "list"], ["data", "list"], ["benchmarks", "--json"]],
    ids=" ".join,
)
def test_0_done(arguments: list[str]) -> None:
    assert run(*arguments) == (0, "")


# --- 1: some images failed ----------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("command", ["segment", "batch"])
def test_1_one_of_two_images_failed(clip_folder: Path, tmp_path: Path, make_image: Draw, command: str) -> None:
    images = tmp_path / "images"
    images.mkdir()
    make_image().save(images / "good.png")
    (images / "bad.png").write_text("no image")
    source = sorted(images.iterdir()) if command == "segment" else [images]
    code, errors = run(command, *source, "-c", "dog", "-m", clip_folder, "-o", tmp_path / "out")
    assert code == 1
    (line,) = said(errors)
    assert line.startswith("cliper: error: ")
    assert "bad.png" in line
    assert (tmp_path / "out" / "good.labels.png").is_file()


@pytest.mark.full
def test_1_evaluation_skipped_an_image(clip_folder: Path, tmp_path: Path, make_image: Draw) -> None:
    own_data(tmp_path, 2, make_image)
    bad = next(path for path in tmp_path.rglob("*.*") if path.parent.parent.name == "images")
    bad.write_bytes(b"no image")
    code, errors = run(*own_arguments(tmp_path, clip_folder), "--on-error", "skip")
    assert (code, errors.count("\n")) == (1, 1)
    assert str(bad) in errors


@pytest.mark.full
def test_1_one_mask_could_not_be_prepared(tmp_path: Path) -> None:
    build_sources("coco-stuff171", tmp_path)
    bad = min((tmp_path / "stuffthingmaps_trainval2017" / "val2017").iterdir())
    bad.write_bytes(b"no mask")
    code, errors = run("data", "prepare", "coco-stuff", tmp_path)
    assert (code, errors.count("\n")) == (1, 1)
    assert str(bad) in errors


@pytest.mark.full
def test_1_data_set_is_incomplete(tmp_path: Path) -> None:
    build_tree("voc21", tmp_path)
    assert run("data", "verify", tmp_path, "voc21")[0] == 1


# --- 2: wrong usage or bad input ----------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize(
    "arguments",
    [
        ["--nope"],
        ["nope"],
        ["segment", "--example", "-c", "dog; dog"],
        ["segment", "missing.jpg", "-c", "dog"],
        ["batch", "missing", "-c", "dog", "-o", "out"],
        ["evaluate", "voc21"],
        ["data", "verify", "."],
        ["data", "prepare", "cityscapes", "."],
        ["models", "fetch", "no-such"],
        ["models", "verify", "."],
        ["benchmarks", "voc21"],
        ["serve", "--port", "99999"],
        ["demo", "--host", "256.256.256.256"],
    ],
    ids=" ".join,
)
def test_2_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    code, errors = run(*arguments, PYTHONPATH=code_path(tmp_path))
    assert code == 2, errors
    assert "Traceback" not in errors
    if arguments[:2] != ["data", "verify"]:  # its findings are on standard output
        assert errors.startswith("cliper: error: ")
        assert errors.count("\n") == 1


# --- 70: a defect -------------------------------------------------------------------------------------------


@pytest.fixture
def broken_rich(tmp_path: Path) -> str:
    """``PYTHONPATH`` on which importing rich raises an exception that nothing expects."""
    (tmp_path / "rich.py").write_text("raise ZeroDivisionError('of any\\nkind')")
    return code_path(tmp_path)


@pytest.mark.full
def test_70_is_one_line_without_debug(broken_rich: str) -> None:
    assert run("models", "list", PYTHONPATH=broken_rich) == (
        70,
        "cliper: unexpected ZeroDivisionError: of any kind (run again with --debug for the traceback)\n",
    )


@pytest.mark.full
def test_70_with_debug_shows_the_traceback(broken_rich: str) -> None:
    code, errors = run("models", "list", "--debug", PYTHONPATH=broken_rich)
    assert code == 70
    assert errors.startswith("Traceback (most recent call last):")
    assert errors.splitlines()[-1].startswith("cliper: unexpected ZeroDivisionError")


@pytest.mark.full
def test_70_defect_in_a_worker_process(clip_folder: Path, tmp_path: Path, make_image: Draw) -> None:
    own_data(tmp_path, 4, make_image)
    (tmp_path / "sitecustomize.py").write_text(
        "import cliper.runner.engines.processes as processes\n"
        "def broken(*arguments, **options): raise ZeroDivisionError('of any kind')\n"
        "processes.process_items = broken\n"
    )
    code, errors = run(*own_arguments(tmp_path, clip_folder), "--workers", 2, PYTHONPATH=code_path(tmp_path))
    assert (code, errors.count("\n")) == (70, 1)
    assert "ZeroDivisionError in a worker" in errors


# --- 130: interrupted, 141: closed pipe -----------------------------------------------------------------------


@pytest.mark.full
def test_130_interrupted_evaluation_says_how_to_continue(clip_folder: Path, tmp_path: Path, make_image: Draw) -> None:
    own_data(tmp_path, 60, make_image)
    out = tmp_path / "out"
    process = start(*own_arguments(tmp_path, clip_folder), "-o", out)
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in out.glob("manifest.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "cliper: interrupted; finished images are kept; the same command with --resume continues"


@pytest.mark.full
@pytest.mark.parametrize("command", ["benchmarks", "benchmarks --json", "evaluate --help"])
def test_141_closed_pipe(command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        process = subprocess.run(
            [sys.executable, "-m", "cliper", *command.split()],
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (process.returncode, process.stderr) == (141, b"")


@pytest.mark.full
@pytest.mark.parametrize("stream", [1, 2])
def test_0_without_an_output_stream(stream: int) -> None:
    command = f"{shlex.quote(sys.executable)} -m cliper data list {stream}>&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- the mapping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OutputError("full"), ExitCode.BAD_INPUT),
        (OSError(28, "No space left on device"), ExitCode.BAD_INPUT),
        (MemoryError(), ExitCode.BAD_INPUT),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (SystemExit(1), ExitCode.DEFECT),  # nothing but a closed pipe may exit past the mapping
        (EOFError(), ExitCode.DEFECT),
        (ImportError("torch"), ExitCode.DEFECT),
    ],
    ids=repr,
)
def test_exit_code_of_exception(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (EOFError("no more"), 70, "cliper: unexpected EOFError: no more (run again with --debug for the traceback)\n"),
        (MemoryError(), 2, "cliper: error: out of memory; use smaller images or a smaller model\n"),
        (SystemExit(3), 70, "cliper: unexpected SystemExit: 3 (run again with --debug for the traceback)\n"),
    ],
    ids=repr,
)
def test_message_of_exception(
    command: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("cliper.cli.benchmarks.presets", fail)
    ended = command("benchmarks")
    assert (ended.code, ended.err.lstrip()) == (code, message)
