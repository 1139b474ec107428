"""``cliper evaluate --vocabulary``: words, numbers, reports."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.datasets import find_benchmark, make_vocabulary
from cliper.decode_pool import DecodePool
from cliper.evaluation import ConfusionMatrix
from cliper.evaluation.task import EvaluationTask, SampleSource, Variant, vocabulary_variants
from cliper.model_config import ModelConfig
from dataset_trees import build_tree, expected
from dataset_trees.own import report_of

CLASSES = "dog: dog, puppy\ngrass: green grass, lawn\n"
FOUR = "curated,plain,synonyms,distractors:4"


def own_matrix(folder: Path, segmenter: Any, names: list[str], background: Any, labels: int = 3) -> list[list[int]]:
    """Of the custom data, with the words of ``names``."""
    matrix = ConfusionMatrix(labels)
    for path in sorted((folder / "images").rglob("*.jpg")):
        mask = folder / "masks" / path.relative_to(folder / "images").with_suffix(".png")
        matrix.update(np.asarray(Image.open(mask)), segmenter(path, names, background=background).labels)
    return matrix.matrix.tolist()


def test_each_vocabulary_is_measured_with_its_own_words(evaluate: Any, tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text(CLASSES)
    ended = evaluate("-b", "wall; sky", "--vocabulary", FOUR, "--vocabulary-background", "floor")
    assert (ended.code, ended.err) == (0, "")
    report = report_of(tmp_path / "out")
    rows = {row["label"]: row for row in report["variants"]}
    assert list(rows) == [row["vocabulary"] for row in report["variants"]] == FOUR.split(",")
    texts = report["vocabularies"]
    assert texts["plain"] == {"classes": [["dog", "dog"], ["grass", "grass"]], "background": [["floor"] * 2], "seed": 0}
    assert texts["curated"]["background"] == [["wall"] * 2, ["sky"] * 2]
    distractors = list(rows["distractors:4"]["distractors"])
    lawn = texts["synonyms"]["classes"][1][1]
    assert (lawn in ("green grass", "lawn"), len(distractors)) == (True, 4)
    for name, words, background in (
        ("curated", ["dog: dog, puppy", "grass: green grass, lawn"], "wall; sky"),
        ("plain", ["dog", "grass"], "floor"),
        ("synonyms", ["dog: puppy", f"grass: {lawn}"], "floor"),
        ("distractors:4", ["dog", "grass", *distractors], "floor"),
    ):
        labels = 7 if name == "distractors:4" else 3
        assert rows[name]["matrix"] == own_matrix(tmp_path, tiny, words, background, labels), name


def test_pixels_of_distractors_are_wrong(evaluate: Any, tmp_path: Path) -> None:
    assert evaluate("-b", "none", "--vocabulary", "plain", "--vocabulary", "distractors:60").code == 0
    plain, row = report_of(tmp_path / "out")["variants"]
    matrix = np.array(row["matrix"])
    assert matrix.shape == (63, 63)
    assert list(row["distractors"].values()) == matrix[:, 3:].sum(0).tolist()
    found = sum(count > 0 for count in row["distractors"].values())
    assert found > 5
    diagonal = matrix.diagonal()[:3]
    iou = diagonal / (matrix.sum(1)[:3] + matrix.sum(0)[:3] - diagonal)
    present = matrix.sum(1)[:3] > 0
    assert row["miou"] == pytest.approx(iou[present].mean(), abs=1e-6)  # it is written with six digits
    predicted = np.count_nonzero(matrix.sum(0)[:3][~present])
    total = present.sum() + predicted + found
    assert row["miou_all"] == pytest.approx(iou[present].sum() / total, abs=1e-6)
    assert row["pixel_accuracy"] == pytest.approx(diagonal.sum() / matrix.sum(), abs=1e-6)
    assert matrix.sum() == np.sum(plain["matrix"])
    assert list(row["class_iou"]) == ["background", "dog", "grass"]
    mean, minimum = (plain["miou"] + row["miou"]) / 2, min(plain["miou"], row["miou"])
    assert plain["robust_miou"] == row["robust_miou"] == {"mean": pytest.approx(mean, abs=1e-6), "minimum": minimum}


def test_report_without_the_option_is_that_of_curated(evaluate: Any, tmp_path: Path) -> None:
    assert evaluate("-b", "wall", out="a").code == evaluate("-b", "wall", "--vocabulary", "curated", out="b").code == 0
    before, after = report_of(tmp_path / "a"), report_of(tmp_path / "b")
    added = {"vocabulary", "vocabularies", "miou_all", "distractors", "robust_miou"}
    assert not added & set(before)
    assert added < set(after)
    for key in ("matrix", "miou", "class_iou", "classes", "background", "settings"):
        assert before[key] == after[key]
    assert (after["miou_all"], after["distractors"]) == (after["miou"], {})


def test_printed_tables_have_both_means_and_the_robust_ones(command: Any, evaluate: Any, tmp_path: Path) -> None:
    ended = evaluate("-b", "none", "--vocabulary", "curated,plain,distractors:9")
    headings, *rows = [line.split() for line in ended.out.splitlines()[1:5]]
    assert headings == ["vocabulary", "mIoU", "mIoU", "all", "pixel", "accuracy", "mean", "accuracy"]
    variants = report_of(tmp_path / "out")["variants"]
    assert [row[0] for row in rows] == ["curated", "plain", "distractors:9"]
    for row, variant in zip(rows, variants, strict=True):
        assert row[1:3] == [f"{100 * variant[key]:.1f}" for key in ("miou", "miou_all")]
    robust = variants[0]["robust_miou"]
    mean, minimum = (f"{100 * robust[key]:.1f}" for key in ("mean", "minimum"))
    assert f"robust mIoU, over 3 vocabularies: mean {mean}, minimum {minimum} (percent)" in ended.out
    ended = command("report", tmp_path / "out" / "report.json", "-f", "csv")
    table = [line.split(",") for line in ended.out.splitlines()]
    assert table[0][4:9] == ["vocabulary", "mIoU", "mIoU all", "robust mean", "robust minimum"]
    assert [row[4] for row in table[1:]] == ["curated", "plain", "distractors:9"]
    assert table[3][6:9] == [f"{100 * v:.2f}" for v in (variants[2]["miou_all"], robust["mean"], robust["minimum"])]
    ended = evaluate("-b", "none", "--vocabulary", "distractors:9", out="one")
    everything = report_of(tmp_path / "one")["miou_all"]
    assert f"vocabulary distractors:9; mIoU over all classes, also those only predicted: {100 * everything:.1f}" in (
        ended.out
    )
    image = tmp_path / "confusion.png"
    assert command("report", tmp_path / "one" / "report.json", "--confusion", image).code == 0


def test_ablation_measures_each_variant_with_each_vocabulary(evaluate: Any, tmp_path: Path) -> None:
    choice = ("--ablation", "--attentions", "fused", "--features", "both", "--refiners", "none")
    ended = evaluate("-b", "none", *choice, "--vocabulary", "plain,distractors:5")
    assert (ended.code, ended.err) == (0, "")
    rows = report_of(tmp_path / "out")["variants"]
    assert [row["label"] for row in rows] == [
        f"fused, feature fusion {on}, refiner none, vocabulary {name}"
        for on in ("on", "off")
        for name in ("plain", "distractors:5")
    ]
    for pair in (rows[:2], rows[2:]):
        low = min(row["miou"] for row in pair)
        assert [row["robust_miou"]["minimum"] for row in pair] == [low, low]
    assert ended.out.splitlines()[1].split()[:4] == ["feature", "fusion", "vocabulary", "mIoU"]


def test_networks_run_once_for_all_vocabularies(own_tiny: Any, tmp_path: Path) -> None:
    build_tree("voc21", tmp_path)
    benchmark, models = find_benchmark("voc21"), ModelConfig("tiny", own_tiny.settings)
    vocabularies = [make_vocabulary(benchmark, name) for name in FOUR.split(",")]
    task = EvaluationTask("voc21", {"root": tmp_path}, vocabulary_variants([Variant("", models)], vocabularies))
    refined = own_tiny.with_refiner("self")
    model = {variant.label: refined.with_settings(own_tiny.settings) for variant in task.variants}
    calls: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        run = getattr(owner, name)
        setattr(owner, name, lambda *arguments, **options: calls.update([name]) or run(*arguments, **options))

    count(own_tiny.encoder, "encode_images")
    count(refined.refiner, "encode")
    with DecodePool(1, handler=task.decoder) as pool:
        _, loaded = task.read(model, next(SampleSource("", task.samples()).items()), pool)
    [(_, assign_labels)] = task.process(model, [loaded])
    assert [len(assign().classes) for assign in assign_labels.values()] == [20, 20, 20, 24]
    assert calls == {"encode_images": 1, "encode": 1}


def test_resume_notices_other_words(evaluate: Any, tmp_path: Path) -> None:
    flags = ("-b", "none", "--vocabulary", "plain,distractors:3")
    assert evaluate(*flags, "--limit", 5).code == 0
    report = report_of(tmp_path / "out")
    assert evaluate(*flags, "--limit", 5, "--resume").code == 0
    assert report_of(tmp_path / "out")["variants"] == report["variants"]
    for other in (("--vocabulary-seed", 1), ("--vocabulary-background", "auto")):
        ended = evaluate(*flags, "--limit", 5, "--resume", *other)
        assert ended.code == 2
        assert "vocabularies" in ended.err


def test_workers_count_the_same(evaluate: Any, tmp_path: Path) -> None:
    flags = ("-b", "none", "--vocabulary", "plain,distractors:3")
    assert evaluate(*flags, out="one").code == evaluate(*flags, "--workers", 2, out="two").code == 0
    one, two = (report_of(tmp_path / out)["variants"] for out in ("one", "two"))
    assert [row["matrix"] for row in one] == [row["matrix"] for row in two]


@pytest.mark.parametrize("name", ["voc21", "coco-stuff171"])
def test_published_benchmark_with_distractors(command: Any, clip_folder: Path, tmp_path: Path, name: str) -> None:
    """Of COCO-Stuff the labels of the distractors pass 255, the ignored value of its masks."""
    build_tree(name, tmp_path)
    out = tmp_path / "out"
    flags = ("--vocabulary", "distractors:100", "--contact-sheet", 1)
    ended = command("evaluate", name, "--data", tmp_path, "-m", clip_folder, "-o", out, *flags)
    assert (ended.code, ended.err) == (0, "")
    report = report_of(out)
    labels = find_benchmark(name).num_labels + 100
    assert np.shape(report["matrix"]) == (labels, labels)
    counted = sum(int((truth != 255).sum()) for truth in expected(name).values())
    if name == "coco-stuff171":
        counted = sum(int(((truth != 255) & (truth != 0)).sum()) for truth in expected(name).values())
        assert sum(list(report["distractors"].values())[83:]) > 0  # labels from 255
    assert np.sum(report["matrix"]) == counted
    with Image.open(out / "contact-sheet.png") as sheet:
        assert sheet.width > 900


def test_bad_use_of_vocabularies_is_one_line(evaluate: Any) -> None:
    for flags, words in (
        (("--vocabulary", "plane"), "expected a vocabulary, one of curated, plain, synonyms, distractors and"),
        (("--vocabulary", "synonyms"), "another prompt than its name for each class, got none for dog"),
        (("--vocabulary", ","), "--vocabulary: expected a name such as plain, got none"),
        (("--vocabulary-seed", 3), "--vocabulary-seed is for other words; give --vocabulary"),
        (("--vocabulary", "plain", "--vocabulary-background", "auto; wall"), "--vocabulary-background: expected auto"),
        (("--vocabulary", "curated", "--vocabulary-background", "auto"), "is for other words than the benchmark's own"),
    ):
        ended = evaluate(*flags)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert words in ended.err
