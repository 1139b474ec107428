"""Label Studio files, read by the rules of Label Studio."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from format_helpers import CLASSES, NAMES, decode_brush, labels_of, make_run, result_of

from cliper.errors import ClassListError, InputError
from cliper.formats import FormatOptions, ImageInfo, find_format
from cliper.formats.label_studio import labeling_config, read_label_config

FORMAT = find_format("label-studio")


def test_run_is_read_back(tmp_path: Path) -> None:
    run = make_run(tmp_path, FORMAT)
    tasks_path, config_path = run.paths
    config = ElementTree.fromstring(config_path.read_text(encoding="utf-8"))
    image, brush = config.find("Image"), config.find("BrushLabels")
    assert [label.get("value") for label in brush] == list(CLASSES)
    tasks = json.loads(tasks_path.read_text())
    variable = image.get("value").removeprefix("$")
    assert [task["data"][variable] for task in tasks] == [
        "/data/local-files/?d=a.jpg",
        "/data/local-files/?d=deep/er/b.png",
        "/data/local-files/?d=deep/c%20d.webp",
    ]
    for task, name in zip(tasks, NAMES, strict=True):
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == "some"
        labels = np.zeros((40, 60), int)
        for mask in prediction["result"]:
            assert (mask["from_name"], mask["to_name"]) == (brush.get("name"), image.get("name"))
            assert (mask["type"], mask["value"]["format"]) == ("brushlabels", "rle")
            size = mask["original_height"], mask["original_width"], 4
            alpha = decode_brush(mask["value"]["rle"]).reshape(size)[..., 3]
            (label,) = mask["value"]["brushlabels"]
            labels[alpha > 0] = CLASSES.index(label) + 1
        np.testing.assert_array_equal(labels, run.results[name].labels)
        assert len({mask["id"] for mask in prediction["result"]}) == len(prediction["result"])
        assert prediction["score"] == pytest.approx(0.7)


def test_task_of_one_result() -> None:
    task = result_of(np.array([[0, 2]])).to_label_studio(image_url="https://a.example/b.jpg")
    assert task["data"] == {"image": "https://a.example/b.jpg"}
    assert [mask["value"]["brushlabels"] for mask in task["predictions"][0]["result"]] == [["wooden bench"]]


def test_result_without_a_class_has_score_0() -> None:
    (prediction,) = result_of(np.zeros((2, 2))).to_label_studio()["predictions"]
    assert (prediction["result"], prediction["score"]) == ([], 0)


def test_scores_are_at_most_1() -> None:
    result = replace(result_of(np.array([[1, 2, 3]])), confidence=np.array([1.6, 0.5, 0.0], np.float32))
    (prediction,) = result.to_label_studio()["predictions"]
    assert [mask["score"] for mask in prediction["result"]] == [1.0, 0.5, 0.0]
    assert prediction["score"] == 0.5


def test_colours_are_those_of_the_overlay() -> None:
    colours = [label.get("background") for label in ElementTree.fromstring(labeling_config(CLASSES)).iter("Label")]
    assert colours == ["#e69f00", "#56b4e9", "#009e73"]


def test_addresses_begin_with_the_name_of_the_image_folder(tmp_path: Path) -> None:
    options = FormatOptions(image_folder="my photos")
    FORMAT.write(result_of(labels_of(1)), tmp_path / "a", ImageInfo("x/é.jpg", 60, 40), options)
    (task,) = json.loads((tmp_path / "a").read_text())
    assert task["data"]["image"] == "/data/local-files/?d=my%20photos/x/%C3%A9.jpg"


@pytest.mark.parametrize(
    ("model", "shown"),
    [("/home/me/clips/tiny", "tiny"), ("./clips/tiny/", "tiny"), ("~/tiny", "tiny"), ("ViT-B/16", "ViT-B/16")],
)
def test_model_version_has_no_folders(model: str, shown: str, tmp_path: Path) -> None:
    result = replace(result_of(labels_of(1)), model=model)
    FORMAT.write(result, tmp_path / "a", ImageInfo("a", 60, 40), FormatOptions())
    assert json.loads((tmp_path / "a").read_text())[0]["predictions"][0]["model_version"] == shown


@pytest.mark.parametrize("name", ["bell\a", "nul\0", "two\nlines", "tab\t", "\uffff", "surrogate \udcff", "\x85"])
def test_class_names_that_xml_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"Label Studio.*a class.*give it another name") as caught:
        FORMAT.check_classes(("dog", name), FormatOptions())
    assert str(caught.value).isprintable()


def test_class_names_are_read_back() -> None:
    names = ("yes", "a: b", "<&>", "'", '"', "狗 🐕", "é\u2028x", "", " a  b ")
    FORMAT.check_classes(names, FormatOptions())
    labels = ElementTree.fromstring(labeling_config(names)).iter("Label")
    assert tuple(label.get("value") for label in labels) == names


CONFIG = """<View>
  <Image name="photo" value="$picture"/>
  <BrushLabels name="brush" toName="photo"><Label value="cat"/><Label value="dog" alias="canine"/></BrushLabels>
</View>"""


def test_label_config_of_the_format_is_read() -> None:
    found = read_label_config(labeling_config(["dog", "red bus", "a<b"]))
    assert (found.brush, found.image, found.value) == ("tag", "image", "image")
    assert found.labels == tuple((name, name) for name in ("dog", "red bus", "a<b"))


BOMB = '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (BOMB + "]><View>&j;</View>", "document type"),
        ('<!DOCTYPE v SYSTEM "http://127.0.0.1:1/x.dtd"><View/>', "document type"),
        ('<!DOCTYPE v [<!ENTITY x SYSTEM "file:///etc/passwd">]><View>&x;</View>', "document type"),
        ("<View>&x;</View>", "could not read"),
        ("", "could not read"),
        ("\ud800", "could not read"),
        ("<View>", "could not read"),
        ("<View></View>" * 2, "could not read"),
        ("<View>" * 100_000, "could not read"),
        ('<View><Image name="i" value="$p"/></View>', "got none"),
        ('<View><Image name="i" value="$p"/><BrushLabels name="b" toName="i"/></View>', "expected <Label>"),
        (CONFIG.replace('toName="photo"', 'toName="text"'), "got none"),
        (CONFIG.replace("$picture", "picture"), "got none"),
        (CONFIG.replace('value="dog"', 'value=" "'), "with a value"),
        (CONFIG.replace('value="dog"', 'value="a;b"'), "without ';'"),
    ],
    ids=lambda text: ascii(text)[:24],
)
def test_invalid_label_configs(config: str, said: str) -> None:
    with pytest.raises(ClassListError, match=said):
        read_label_config(config)
