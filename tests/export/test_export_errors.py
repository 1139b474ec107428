"""What cannot be exported is refused in one line, and nothing is left of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cliper import Settings
from cliper.errors import CheckpointError, CliperError, OutputError
from cliper.export import export_model


@pytest.fixture(autouse=True)
def _libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests end before a library is needed."""
    monkeypatch.setattr("cliper.export.folder.find_spec", lambda name: True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "tflite"}, "target: expected one of onnx, openvino, got 'tflite'"),
        ({"precision": "int4"}, "precision: expected one of float32, float16, int8, got 'int4'"),
        ({"refiner": "sd2.1"}, "refiner: expected none or 'self', whose graphs can be exported, got 'sd2.1'"),
        ({"settings": Settings(flip=True, window=224)}, "window, flip: no graph computes this; expected window=0"),
        ({"settings": Settings(attention="proxy")}, "attention: no graph computes 'proxy'"),
        ({"settings": Settings(select_layer=9)}, "select_layer: expected a layer from -3 to 2"),
        ({"shape": (64, 100)}, "shape: expected multiples of the patch size 16 with at most 8192 patches, got 64x100"),
        ({"shape": (160000, 16)}, "shape: expected multiples"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    options: dict, message: str, clip_folder: Path, tmp_path: Path, tree: Callable
) -> None:
    with pytest.raises(CliperError) as caught:
        export_model(tmp_path / "deep" / "out", clip_folder, **options)
    assert str(caught.value).startswith(message)
    assert tree(tmp_path) == []


def test_model_with_another_tokenizer_is_refused(
    clip_folder: Path, tmp_path: Path, tree: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cliper.checkpoints.clip_config.TextConfig.tokenizer", "file")  # as SigLIP 2 has
    with pytest.raises(CheckpointError, match="expected a model with CLIP's tokenizer, got one with another"):
        export_model(tmp_path / "out", clip_folder)
    assert tree(tmp_path) == []


def test_existing_folder_is_left_alone(clip_folder: Path, tmp_path: Path, command: Callable) -> None:
    (tmp_path / "out").mkdir()
    ended = command("export", "onnx", tmp_path / "out", "-m", clip_folder)
    assert ended.code == 2
    assert "expected a folder that does not exist, got" in ended.err
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_folder_that_cannot_be_made(clip_folder: Path, tmp_path: Path, command: Callable) -> None:
    (tmp_path / "file").touch()
    ended = command("export", "onnx", tmp_path / "file" / "out", "-m", clip_folder)
    assert ended.code == 2
    assert ended.err.startswith("cliper: error: cannot write")


def test_missing_library_names_the_extra(
    clip_folder: Path, tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cliper.export.folder.find_spec", lambda name: None if name == "openvino" else True)
    ended = command("export", "openvino", tmp_path / "out", "-m", clip_folder)
    assert ended.code == 2
    assert "an export needs openvino, which is not installed; pip install 'cliper[export]'" in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", ["64", "64x", "axb", "64x64x3"])
def test_shape_that_cannot_be_read(shape: str, clip_folder: Path, tmp_path: Path, command: Callable) -> None:
    ended = command("export", "onnx", tmp_path / "out", "-m", clip_folder, "--shape", shape)
    assert ended.code == 2
    assert f"--shape: expected HEIGHTxWIDTH, such as 336x448, got '{shape}'" in ended.err


def test_nothing_is_left_where_the_export_fails(
    clip_folder: Path, tmp_path: Path, tree: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(encoder: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cliper.export.graphs.text_graph", fail)
    with pytest.raises(OutputError, match=r"cannot write .*: No space left on device; choose another folder"):
        export_model(tmp_path / "new" / "out", clip_folder)
    assert tree(tmp_path) == []
