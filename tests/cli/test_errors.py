"""Errors of the command line: one line each, and nothing half-written. Exit codes: test_exit_codes.py."""

from __future__ import annotations

import errno
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.cli.main import cli
from cliper.formats import read_label_png
from hostile_images import gif_comment

Draw = Callable[..., Image.Image]


# --- images --------------------------------------------------------------------------------------------


def truncated_jpeg(path: Path, draw: Draw) -> None:
    draw(200, 150).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bomb(path: Path, _: Draw) -> None:
    Image.new("1", (20_000, 10_000)).save(path, "PNG")


BAD_IMAGES: dict[str, tuple[str, Callable[[Path, Draw], object], str]] = {
    "a truncated JPEG": ("a.jpg", truncated_jpeg, "a.jpg"),
    "nothing in it": ("a.png", lambda path, _: path.write_bytes(b""), "0 bytes"),
    "text": ("a.png", lambda path, _: path.write_text("this is a text file"), "a.png"),
    "a long strip": ("a.png", lambda path, _: Image.new("RGB", (30_000, 2)).save(path), "30000x2"),
    "a bomb": ("a.png", bomb, "20000x10000"),
    "a folder": ("a.png", lambda path, _: path.mkdir(), "folder"),
    "not there": ("a.png", lambda _path, _: None, "nothing there"),
    "a hostile file": ("a.gif", lambda path, _: path.write_bytes(gif_comment(0.2)), "bytes of comments"),
    "a pipe": ("a.png", lambda path, _: os.mkfifo(path), "pipe"),
    "a line break in its name": ("a\nb.png", lambda path, _: path.write_bytes(b""), "0 bytes"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_unusable_image_is_refused(
    refused: Any, clip_folder: Path, tmp_path: Path, make_image: Draw, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)  # with it, large images are segmented in tiles
    name, make, words = BAD_IMAGES[case]
    make(tmp_path / name, make_image)
    code = 1 if (tmp_path / name).is_file() else 2  # what is no file is refused before the model is loaded
    arguments = ["segment", tmp_path / name, "-c", "dog", "-m", clip_folder, "-o", tmp_path / "out"]
    assert words in refused(*arguments, code=code)


def jpeg_turned(path: Path, draw: Draw) -> None:
    image = draw(90, 60)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, "JPEG", exif=exif)


def sixteen_bit(path: Path, _: Draw) -> None:
    ramp = np.linspace(0, 65535, 60 * 90).reshape(60, 90).astype(np.uint16)
    Image.fromarray(ramp).save(path)


def palette_with_transparency(path: Path, draw: Draw) -> None:
    draw(90, 60).quantize(16).save(path, transparency=3)


def animated(path: Path, draw: Draw) -> None:
    frames = [draw(90, 60, seed=seed) for seed in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


UNUSUAL_IMAGES: dict[str, tuple[str, Callable[[Path, Draw], object], tuple[int, int]]] = {
    "one pixel": ("a.png", lambda path, _: Image.new("RGB", (1, 1), "red").save(path), (1, 1)),
    "16 bit": ("a.png", sixteen_bit, (60, 90)),
    "a palette with transparency": ("a.png", palette_with_transparency, (60, 90)),
    "CMYK": ("a.jpg", lambda path, draw: draw(90, 60).convert("CMYK").save(path), (60, 90)),
    "turned": ("a.jpg", jpeg_turned, (90, 60)),
    "an animation": ("a.gif", animated, (60, 90)),
    "grey": ("a.png", lambda path, draw: draw(90, 60).convert("L").save(path), (60, 90)),
    "another suffix": ("a.txt", lambda path, draw: draw(90, 60).save(path, "PNG"), (60, 90)),
}


@pytest.mark.parametrize("case", UNUSUAL_IMAGES)
def test_unusual_image_is_labelled_like_from_python(
    command: Any, own_tiny: Any, clip_folder: Path, tmp_path: Path, make_image: Draw, case: str
) -> None:
    """tests/images tests the decoding of each kind of file."""
    name, make, shape = UNUSUAL_IMAGES[case]
    make(tmp_path / name, make_image)
    ended = command("segment", tmp_path / name, "-c", "dog; sky", "-m", clip_folder, "-o", tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    labels = read_label_png(tmp_path / "out" / "a.labels.png")
    assert labels.shape == shape
    assert np.array_equal(labels, own_tiny(tmp_path / name, "dog; sky").labels)


def test_other_images_are_done_if_one_fails(
    command: Any, clip_folder: Path, tmp_path: Path, make_image: Draw, tree: Any
) -> None:
    for name in ("a", "c"):
        make_image().save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_text("no image")
    images = [tmp_path / f"{name}.png" for name in "abcd"]
    out = tmp_path / "out"
    ended = command("segment", *images, "-c", "dog", "-m", clip_folder, "-o", out, "--json", "--no-overlay")
    assert ended.code == 1
    assert [json.loads(line)["input"] for line in ended.out.splitlines()] == [str(images[0]), str(images[2])]
    errors = ended.err.splitlines()
    assert len(errors) == 2
    assert all(line.startswith("cliper: error: ") for line in errors)
    assert "b.png" in errors[0]
    assert "d.png" in errors[1]
    assert tree(out) == ["a.labels.png", "c.labels.png", "classes.txt"]


def test_images_with_the_same_output_name_are_refused(
    refused: Any, clip_folder: Path, photo: Path, tmp_path: Path
) -> None:
    images = [tmp_path / "x" / "a.jpg", tmp_path / "y" / "a.png"]
    for image in images:
        image.parent.mkdir()
        image.write_bytes(photo.read_bytes())
    line = refused("segment", *images, "-c", "dog", "-m", clip_folder, "-o", tmp_path)
    assert f"{images[0]} and {images[1]} would both be written to a.labels.png" in line


@pytest.mark.parametrize("suffix", [".labels.png", ".overlay.png", ".labels.tif"])
def test_image_that_a_result_would_overwrite_is_refused(
    refused: Any, clip_folder: Path, photo: Path, tmp_path: Path, suffix: str
) -> None:
    result = tmp_path / f"photo{suffix}"  # as an earlier run has written it
    result.write_bytes(photo.read_bytes())
    line = refused("segment", photo, result, "-c", "dog", "-m", clip_folder, "-o", tmp_path)
    assert f"{result} would be overwritten by a result of this run; give another folder with --out" in line


# --- classes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected classes, got none"),
        (["-c", ""], "expected at least one class, got none"),
        (["-c", " ; "], "expected at least one class, got none"),
        (["-c", "dog", "-c", " "], "got a blank one"),
        (["-c", "dog; Dog"], "'Dog' is given twice"),
        (["-c", "dog", "-c", "cat; dog"], "'dog' is given twice"),
        (["-c", "dog:"], "expected a class as 'name' or"),
        (["-c", "x" * 10_000], "expected a text of at most 77 tokens"),
        (["-c", "word " * 2_000], "expected a text of at most 77 tokens"),
        (["-c", "\udcff"], "UTF-8"),
        (["-c", "dog", "-b", "wall; wall"], "background name 'wall' is given twice"),
        (["-c", "dog", "-b", "auto", "-b", "wall"], "expected auto or none alone"),
        (["-c", "dog", "-b", "auto; wall"], "expected auto or none alone"),
        (["-c", "dog", "-b", "none", "-b", "none"], "expected auto or none alone"),
        (["-c", "dog", "-b", ";"], "expected at least one background name"),
        (["--classes-file", "no-such-file.txt"], "no-such-file.txt: could not read the class file"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_unusable_classes_are_refused(
    refused: Any, clip_folder: Path, photo: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    line = refused("segment", photo, *arguments, "-m", clip_folder, "-o", tmp_path / "out")
    assert words in line
    assert len(line) < 400


def test_line_break_in_a_class_name_is_a_blank(command: Any, clip_folder: Path, photo: Path, tmp_path: Path) -> None:
    ended = command("segment", photo, "-c", "dog\nDOG\n; dog", "-m", clip_folder, "-o", tmp_path)
    assert (ended.code, ended.err) == (0, "")


def test_unusable_class_file_is_refused(refused: Any, clip_folder: Path, photo: Path, tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    for content, words in ((b"dog\ndog", "given twice"), (b"\xff\xfe", "UTF-8"), (b"\n", "at least one class")):
        path.write_bytes(content)
        line = refused("segment", photo, "--classes-file", path, "-m", clip_folder, "-o", tmp_path / "out")
        assert line.startswith(f"{path}: ")
        assert words in line


# --- usage and settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["segment", "-c", "dog"], "expected an image, got none"),
        (["segment", "--clases", "dog"], "No such option '--clases'. (Did you mean one of: '--class-top', '--classes'"),
        (["segment", "https://example.org/a.jpg", "-c", "dog"], "got an address of a.jpg; download it first"),
        (["segment", "a.jpg", "-c", "dog", "-f", "label"], "got 'label'; did you mean 'labels'?"),
        (["segment", "--scale", "3"], "'--logit-scale'"),
        (["segmnt"], "No such command 'segmnt'. Did you mean 'segment'? (see cliper --help)"),
        (["segment", "--example", "--size", "big"], "--size"),
        (["segment", "--example", "--attention", "flash"], "--attention"),
        (["segment", "--example", "-m"], "-m"),
        (["nope"], "nope"),
        (["models", "nope"], "nope"),
        (["models", "fetch"], "NAME"),
        (["--nope"], "--nope"),
        (["segment", "--example", "--size", "0"], "command line: size: expected a whole number from 1 to 4096, got 0"),
        (["segment", "--example", "--logit-scale", "nan"], "command line: logit_scale: expected a number"),
        (["segment", "--example", "--templates", "scene16"], "--templates"),
        (["segment", "--example", "--refine-size", "x"], "--refine-size: expected a side or HEIGHTxWIDTH, got 'x'"),
        (["segment", "--example", "--refine-size", "1x2x3"], "refine_size: expected"),
        (["segment", "--example", "-s", "vit-b-16/voc"], "no preset is called 'vit-b-16/voc'"),
        (["segment", "--example", "-s", "no.yaml"], "settings file 'no.yaml' does not exist"),
        (["segment", "--example", "--device", "gpu"], "an NVIDIA or AMD GPU is called cuda"),
        (["segment", "--example", "--dtype", "float8"], "--dtype"),
        (["segment", "--example", "--seed", "18446744073709551616"], "seed: expected a whole number from -922"),
        (["segment", "--example", "--seed", "x"], "--seed"),
        (["segment", "--example", "--select-layer", "12"], "select_layer: expected a layer from -12 to 11"),
        (["segment", "--example", "--window", "113"], "window: expected a multiple of the patch size 14"),
    ],
    ids=lambda x: " ".join(x)[:40] if isinstance(x, list) else "",
)
def test_wrong_usage_is_one_line(
    refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in refused(*arguments)


def test_bad_settings_are_refused_before_the_model_is_resolved(
    refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cliper.checkpoints.resolve", lambda *_, **__: pytest.fail("it was resolved"))
    (tmp_path / "own.yaml").write_text("treshold: 0.2")
    for flags in (["--size", "-3"], ["-s", "own.yaml"], ["--templates", "none"], ["-s", "vit-b-16/nothing"]):
        refused("segment", "--example", "-m", "ViT-L/14", *flags)


def test_help_exits_with_0(command: Any) -> None:
    for arguments in (["--help"], ["-h"], ["segment", "--help"], ["models", "list", "-h"], ["doctor", "--help"]):
        ended = command(*arguments)
        assert (ended.code, ended.err) == (0, "")
        assert "Usage: cliper" in ended.out
    for name in cli.commands:
        assert name in command("--help").out


def test_command_without_arguments_shows_help(command: Any) -> None:
    for arguments in ([], ["models"]):
        ended = command(*arguments)
        assert "Usage: cliper" in ended.out + ended.err
        assert "Commands:" in ended.out + ended.err


# --- output ----------------------------------------------------------------------------------------------


def test_output_folder_that_is_a_file_is_refused(refused: Any, clip_folder: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    for out in (tmp_path / "out", tmp_path / "out" / "deeper"):
        line = refused("segment", photo, "-c", "dog", "-m", clip_folder, "-o", out)
        assert line == f"expected a folder that can be written, got {out}; choose another with --out"
    assert (tmp_path / "out").read_text() == "a file"


def test_output_folder_without_write_permission_is_refused(refused: Any, clip_folder: Path, photo: Path) -> None:
    # Permissions do not stop root, who may run this; /proc does.
    assert "cannot write" in refused("segment", photo, "-c", "dog", "-m", clip_folder, "-o", "/proc/nothing")


def test_folder_in_place_of_an_output_file_is_refused(
    refused: Any, clip_folder: Path, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "photo.labels.png").mkdir()
    assert "that is a folder" in refused("segment", photo, "-c", "dog", "-m", clip_folder, "-o", tmp_path)


def write_half(patch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Writing any file ends in the middle."""

    def write_bytes(path: Path, data: bytes) -> None:
        with path.open("wb") as stream:
            stream.write(data[: len(data) // 2])
        raise error

    patch.setattr(Path, "write_bytes", write_bytes)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_full_disk_leaves_no_part_of_a_file(
    refused: Any, clip_folder: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    write_half(monkeypatch, OSError(code, os.strerror(code)))
    line = refused("segment", photo, "-c", "dog", "-m", clip_folder, "-o", tmp_path / "out")
    assert line.startswith("cannot write ")


def test_old_result_stays_if_the_new_one_cannot_be_written(
    refused: Any, command: Any, clip_folder: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = ["segment", photo, "-c", "dog", "-m", clip_folder, "-o", out]
    assert command(*arguments).code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    with monkeypatch.context() as patch:
        write_half(patch, OSError(errno.ENOSPC, "full"))
        refused(*arguments)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


# --- interrupts, defects and warnings ----------------------------------------------------------------------------


def test_interrupt_while_writing_leaves_no_part_of_a_file(
    command: Any, clip_folder: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Any
) -> None:
    write_half(monkeypatch, KeyboardInterrupt())
    ended = command("segment", photo, "-c", "dog", "-m", clip_folder, "-o", tmp_path / "out")
    assert ended.code == 130
    assert ended.err.strip() == "cliper: interrupted; files written so far are complete"
    assert tree(tmp_path / "out") == []


@pytest.mark.parametrize("place", ["before", "after", "outside"])
def test_traceback_is_shown_with_debug_only(
    command: Any, clip_folder: Path, photo: Path, tmp_path: Path, place: str
) -> None:
    arguments: list[object] = ["segment", photo, "-c", "dog; dog", "-m", clip_folder, "-o", tmp_path]
    assert "Traceback" not in command(*arguments).err
    position = {"before": 1, "after": len(arguments), "outside": 0}[place]
    ended = command(*arguments[:position], "--debug", *arguments[position:])
    assert ended.code == 2
    assert ended.err.startswith("Traceback (most recent call last):")
    assert ended.err.splitlines()[-1].startswith("cliper: error: class 'dog' is given twice")


@pytest.mark.parametrize("debug", [False, True])
def test_unexpected_exception_is_one_line_and_exits_with_70(
    command: Any, clip_folder: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("not a number\nof any kind")

    monkeypatch.setattr("cliper.segmenter.Segmenter.__call__", broken)
    flags = ["--debug"] if debug else []
    ended = command("segment", photo, "-c", "dog", "-m", clip_folder, "-o", tmp_path / "out", *flags)
    assert ended.code == 70
    assert ended.err.splitlines()[-1] == (
        "cliper: unexpected ZeroDivisionError: not a number of any kind (run again with --debug for the traceback)"
    )
    assert ("Traceback" in ended.err) is debug
    assert debug or ended.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_warnings_are_one_line_each(
    command: Any, clip_folder: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    from cliper.segmenter import Segmenter

    call = Segmenter.__call__

    def noisy(self: Any, *arguments: Any, **options: Any) -> Any:
        warnings.warn("take\ncare", UserWarning, stacklevel=1)
        logging.getLogger("cliper.checkpoints").warning("%s:\n%s", "so", "it is")
        return call(self, *arguments, **options)

    monkeypatch.setattr(Segmenter, "__call__", noisy)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        ended = command("segment", photo, "-c", "dog", "-m", clip_folder, "-o", tmp_path)
    assert ended.code == 0
    assert ended.err.splitlines() == ["cliper: warning: take care", "cliper: warning: so: it is"]


def test_unwritable_cache_is_a_warning(
    command: Any, clip_folder: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPER_CACHE", "/proc/nothing")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        ended = command("segment", photo, "-c", "dog", "-m", clip_folder, "-o", tmp_path)
    assert ended.code == 0
    (line,) = ended.err.splitlines()
    assert line.startswith("cliper: warning: text embeddings are not cached: cannot use /proc/nothing")


@pytest.mark.parametrize("value", ["0.4", "40%", "1"])
def test_number_as_background_names_the_threshold(command: Any, photo: Path, value: str) -> None:
    ended = command("segment", photo, "-c", "dog", "-b", value)
    assert ended.code == 2
    assert f"got '{value}'; the threshold is --background-threshold" in ended.err
