"""The page's work without the page: progress, thresholds without networks, files, errors in one line."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.errors import InputError
from cliper.formats import read_label_png
from cliper.web.page.actions import Actions, Form, one_line
from cliper.web.page.form import NONE, OWN
from hostile_images import gif_comment

Fill = Callable[..., Form]
Make = Callable[..., Actions]


def last(actions: Actions, form: Form, name: str = "") -> tuple[dict[str, str], str]:
    return list(actions.segment(form, name))[-1]


def refused(actions: Actions, form: Form) -> str:
    status, name = last(actions, form, "old")
    assert status["kind"] == "error"
    assert name == "old", "the result so far stays"
    assert "\n" not in status["text"]
    assert len(actions.kept) == 0
    return status["text"]


def test_segment_says_how_far_it_is_and_keeps_the_result(make_actions: Make, form: Fill, tiny: Any) -> None:
    actions = make_actions()
    steps = list(actions.segment(form(), ""))
    assert [status["kind"] for status, _ in steps] == ["busy", "busy", "done"]
    assert {name for _, name in steps[:-1]} == {""}
    status, name = steps[-1]
    assert "of 2 classes found in 96 x 64 pixels" in status["text"]
    settings = tiny.settings.replace(
        score_threshold=0.0, background_threshold=0.1, refine_max_patches=actions.limits.patches
    )
    expected = tiny.with_settings(settings)(Image.open(form().picture), ["dog", "cat"])
    assert np.array_equal(actions.kept.get(name).labels, expected.labels)
    assert actions.kept.get(name).settings == settings


def test_a_new_result_takes_the_place_of_the_sessions_old_one(make_actions: Make, form: Fill) -> None:
    actions = make_actions()
    _, first = last(actions, form())
    _, other = last(actions, form(classes=["tree"]))
    _, second = last(actions, form(), first)
    assert len(actions.kept) == 2
    actions.kept.get(second)
    assert actions.kept.get(other).classes == ("tree",)
    with pytest.raises(InputError):
        actions.kept.get(first)


def test_thresholds_run_no_network(make_actions: Make, form: Fill, tiny: Any, monkeypatch: Any) -> None:
    actions = make_actions()
    _, name = last(actions, form())
    result = actions.kept.get(name)

    def network(*_: Any, **__: Any) -> None:
        raise AssertionError("a network ran")

    for part in ("encode_images", "encode_texts", "patch_features"):
        monkeypatch.setattr(tiny.encoder, part, network)
    seen = set()
    for score, background in ((0.0, 0.1), (0.0, 0.9), (1.0, 0.1), (0, 0)):
        view = actions.move(name, score, background)
        expected = result.relabel(score_threshold=score, background_threshold=background)
        assert view["areas"] == list(expected.areas.values())
        scene, labels = actions.scene(name, score, background)
        assert labels == view
        assert (labels["score"], labels["threshold"]) == (score, background)
        assert scene["name"] == name
        assert [item["name"] for item in scene["classes"]] == ["dog", "cat"]
        seen.add(tuple(view["areas"]))
    assert len(seen) > 1
    assert actions.kept.get(name) is result, "a session's own thresholds change nothing that is kept"


@pytest.mark.parametrize("score", [float("nan"), -1, 2, "0.5", None])
def test_thresholds_out_of_range_are_refused(make_actions: Make, form: Fill, score: Any) -> None:
    actions = make_actions()
    _, name = last(actions, form())
    if score is None:  # what is not sent stays as it was
        assert actions.move(name, None, 0.1) == actions.move(name, 0.0, 0.1)
        return
    said = "^Class threshold: expected a number from 0 to 1, got "
    with pytest.raises(InputError, match=said):
        actions.move(name, score, 0.1)
    with pytest.raises(InputError, match=said.replace("Class", "Background")):
        actions.scene(name, 0.0, score)
    assert re.match(said, last(actions, form(score=score))[0]["text"])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"picture": None}, "expected a picture, got none"),
        ({"picture": 3}, "expected a picture, got none"),
        ({"classes": []}, "at least one class"),
        ({"classes": ["dog", "dog"]}, "twice"),
        ({"classes": ["dog"] * 200}, "at most 100 classes here, got 200"),
        ({"background": OWN}, "background words"),
        ({"model": "/etc"}, "model: expected one of"),
        ({"model": ["mini"]}, "model: expected one of"),
        ({"refiner": "else"}, "refiner: expected one of"),
        ({"refiner": ["self"]}, "refiner: expected one of"),
        ({"recipe": "else"}, "Recipe: expected one of"),
        ({"size": 10**6}, "Size: expected"),
        ({"window": 5}, "Window: expected"),
    ],
)
def test_bad_input_is_one_line(make_actions: Make, form: Fill, changed: dict[str, Any], said: str) -> None:
    assert said in refused(make_actions(), form(**changed))


def test_bad_pictures_are_one_line_without_the_servers_paths(make_actions: Make, form: Fill, uploads: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (9000, 9000)).save(buffer, "PNG")
    whole = Path(form().picture).read_bytes()
    for content, said in (
        (b"no picture", "expected an image (JPEG"),
        (b"", "expected an image"),
        (whole[: len(whole) // 2], "truncated or damaged"),
        (buffer.getvalue(), "at most 32 megapixels"),
        (gif_comment(0.2), "GIF blocks before its pixels"),
    ):
        path = uploads / "given.png"
        path.write_bytes(content)
        text = refused(make_actions(), form(picture=str(path)))
        assert said in text
        assert str(uploads) not in text


def test_only_uploads_are_opened(make_actions: Make, form: Fill, uploads: Path, photo: Path) -> None:
    for path in (photo, uploads / ".." / photo.name, Path("/etc/passwd"), Path("http://127.0.0.1/a.png")):
        assert "was uploaded" in refused(make_actions(), form(picture=str(path)))
    os.mkfifo(uploads / "pipe.png")
    assert "no longer kept" in refused(make_actions(), form(picture=str(uploads / "pipe.png")))
    (uploads / "link.png").symlink_to(photo)
    assert "was uploaded" in refused(make_actions(), form(picture=str(uploads / "link.png")))
    assert "no longer kept" in refused(make_actions(), form(picture=str(uploads / "gone.png")))


def test_many_classes_of_a_large_picture_are_refused(make_actions: Make, form: Fill) -> None:
    actions = make_actions(labelling=1e-6)
    assert "megapixels times classes" in refused(actions, form())


def test_a_picture_that_would_take_too_long_is_refused(make_actions: Make, form: Fill, uploads: Path) -> None:
    Image.new("RGB", (4000, 4)).save(uploads / "long.png")
    assert "patches" in refused(make_actions(), form(picture=str(uploads / "long.png"), size=112))


def test_what_is_unexpected_is_one_line_too(make_actions: Make, form: Fill, monkeypatch: Any) -> None:
    actions = make_actions()

    def broken(*_: Any) -> None:
        raise ValueError("secret detail\nof the server")

    monkeypatch.setattr(actions.models, "get", broken)
    text = refused(actions, form())
    assert "ValueError" in text
    assert "secret" not in text
    assert one_line(InputError("two\nlines")) == "two lines"


def test_loading_a_refiner_is_said(make_actions: Make, form: Fill) -> None:
    texts = [status["text"] for status, _ in make_actions().segment(form(refiner="self", background=NONE), "")]
    assert texts[0].startswith("loading")
    assert "refiner self" in texts[-1]


def test_files_are_those_of_the_thresholds(make_actions: Make, form: Fill) -> None:
    actions = make_actions()
    _, name = last(actions, form())
    expected = actions.kept.get(name).relabel(score_threshold=0.0, background_threshold=0.5)
    assert expected.labels.any()

    def file(**asked: Any) -> Path:
        return actions.download({"name": name, "score": 0.0, "threshold": 0.5, **asked})

    assert np.array_equal(read_label_png(file(what="labels")), expected.labels)
    assert json.loads(file(what="coco").read_text()) == expected.to_coco(file_name="picture")
    overlay = np.asarray(Image.open(file(what="overlay", opacity=0.25, off=[])))
    assert np.array_equal(overlay, np.asarray(expected.overlay(opacity=0.25)))
    without = np.asarray(Image.open(file(what="overlay", opacity=0.25, off=[0, 1])))
    assert np.array_equal(without[:64, :96], np.asarray(expected.image))
    folder = actions.kept.folder(name)
    assert sorted(path.name for path in folder.iterdir()) == ["coco.json", "labels.png", "overlay.png"]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"what": "../../etc/passwd"},
        {"what": ["labels"]},
        {"what": "overlay", "opacity": float("nan"), "off": []},
        {"what": "overlay", "opacity": True, "off": []},
        {"what": "overlay", "opacity": 0.5, "off": [7]},
        {"what": "overlay", "opacity": 0.5, "off": "01"},
        {"what": "overlay", "opacity": 0.5, "off": None},
        {"what": "labels", "threshold": 7},
        {"what": "labels", "score": "0.5"},
        {"what": "labels", "name": "else"},
        {"what": "labels", "name": ["else"]},
    ],
)
def test_files_that_there_are_not(make_actions: Make, form: Fill, asked: dict[str, Any]) -> None:
    actions = make_actions()
    _, name = last(actions, form())
    with pytest.raises(InputError):
        actions.download({"name": name, "score": 0.0, "threshold": 0.5, **asked})
