"""``cliper evaluate`` as a person runs it: all eight benchmarks, one's own data, reports, errors."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cliper
from cliper.datasets import find_benchmark
from cliper.decode_pool import DecodePool
from cliper.evaluation import ConfusionMatrix
from cliper.evaluation.contact_sheet import worst_and_best
from cliper.evaluation.task import EvaluationTask, SampleSource, Variant
from cliper.model_config import ModelConfig
from cliper.runner.manifest import read_manifest
from dataset_trees import NAMES, build_tree, expected
from dataset_trees.own import report_of
from published_order import published_labels
from runs import records


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of each benchmark; not to be changed."""
    root = tmp_path_factory.mktemp("data")
    for name in NAMES:
        build_tree(name, root)
    return root


def plain_iou(pairs: list[tuple[np.ndarray, np.ndarray]], labels: int, ignore: tuple[int, ...]) -> list[float | None]:
    """IoU by label with nothing but numpy; None where the ground truth has none."""
    truth = np.concatenate([target.ravel() for target, _ in pairs])
    guess = np.concatenate([prediction.ravel() for _, prediction in pairs])
    keep = ~np.isin(truth, ignore)
    truth, guess = truth[keep], guess[keep]
    found: list[float | None] = []
    for label in range(labels):
        mine, theirs = truth == label, guess == label
        found.append(float((mine & theirs).sum() / (mine | theirs).sum()) if mine.any() else None)
    return found


# Benchmarks with a background class, without one, and with halves of images; the others are of the same kinds.
QUICK = ("voc21", "ade150", "cityscapes")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.full]) for name in NAMES]
)
def test_every_benchmark_is_evaluated(
    command: Any, clip_folder: Path, own_tiny: Any, trees: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    ended = command("evaluate", name, "--data", trees, "-m", clip_folder, "-o", out)
    assert (ended.code, ended.err) == (0, "")
    report = report_of(out)
    benchmark = find_benchmark(name)
    settings = own_tiny.settings
    if 0 in benchmark.ignore:  # nothing is background there
        settings = settings.replace(score_threshold=0.0, background_threshold=1e-4)
    assert report["settings"] == settings.to_dict()
    segmenter = own_tiny.with_settings(settings)
    pairs = []
    for sample in benchmark.samples(trees):
        pairs.append((expected(name)[sample.name].astype(int), published_labels(segmenter, benchmark, sample)))
    void = [(np.where(t == 255, -1, t), p) for t, p in pairs]  # 171 + 1 labels leave 255 free, 0 may be ignored too
    iou = plain_iou(void, benchmark.num_labels, (-1, *(i for i in benchmark.ignore if i != 255)))
    counted = [value for value in iou if value is not None]
    assert report["miou"] == pytest.approx(np.mean(counted), abs=1e-6)  # it is written with six digits
    names = ["background", *benchmark.class_names]
    for label, value in enumerate(iou):
        if label in benchmark.ignore:
            assert names[label] not in report["class_iou"]
        else:
            assert report["class_iou"][names[label]] == (None if value is None else pytest.approx(value, abs=1e-6))
    assert sum(map(sum, report["matrix"])) == sum(int((t >= (0 in benchmark.ignore)).sum()) for t, _ in void)
    assert (report["images"], report["skipped"], report["complete"]) == (len(pairs), 0, False)
    assert f"mIoU {100 * report['miou']:.1f}" in ended.out
    assert "not the whole benchmark" in ended.out


def test_report_says_where_the_number_comes_from(command: Any, clip_folder: Path, trees: Path, tmp_path: Path) -> None:
    flags = ("--seed", 3, "--logit-scale", 20, "--limit", 2, "--allow-tf32")
    assert command("evaluate", "voc21", "--data", trees, "-m", clip_folder, *flags, "-o", tmp_path / "out").code == 0
    report = report_of(tmp_path / "out")
    for key in ("settings", "model", "refiner", "versions", "machine", "seed", "seconds", "peak_memory", "date"):
        assert report[key] not in (None, "", {}), key
    assert (report["seed"], report["images"], report["settings"]["logit_scale"]) == (3, 2, 20.0)
    assert (report["allow_tf32"], report["data"]) == (True, {"root": str(trees)})
    assert len(report["model"]["sha256"]["model.safetensors"]) == 64
    assert report["peak_memory"]["resident"] > 1 << 24
    lines = records(tmp_path / "out")
    assert [line["input"] for line in lines] == list(expected("voc21"))[:2]
    assert all(0 <= line["miou"][""] <= 1 for line in lines)


class RecordingRefiner:
    """Records its images."""

    name = "recording"

    def __init__(self) -> None:
        self.images: list[np.ndarray] = []

    def encode(self, images: Any, settings: Any, seed: int = 0) -> Any:
        self.images += [(255 * image).round().byte().permute(1, 2, 0).numpy() for image in images]
        return [None] * len(images)


@pytest.mark.parametrize(("refiner", "vae"), [("self", None), ("sd2.1", "taesd")])
def test_tiny_vae_is_recorded_for_refiners_that_have_a_vae(
    own_tiny: Any, monkeypatch: pytest.MonkeyPatch, refiner: str, vae: str | None
) -> None:
    resolved: list[str] = []
    monkeypatch.setattr("cliper.provenance.checkpoint_record", lambda name, **_: resolved.append(name) or {})
    models = ModelConfig("tiny", own_tiny.settings.replace(refine_vae="taesd"), refiner)
    config = EvaluationTask("voc21", {}, (Variant("", models),)).config([])
    assert ("taesd" in resolved, list(config["refine_vaes"])) == (vae is not None, [vae] if vae else [])


@pytest.mark.parametrize("batch", [1, 4])
def test_refiner_gets_halves_of_the_original_image(own_tiny: Any, trees: Path, batch: int) -> None:
    variant = Variant("", ModelConfig("tiny", own_tiny.settings))
    task = EvaluationTask("cityscapes", {"root": trees}, (variant,))
    samples = task.samples()
    segmenter = own_tiny.with_settings(own_tiny.settings)
    segmenter.batch_size, segmenter.refiner = batch, RecordingRefiner()
    model = {"": segmenter}
    with DecodePool(1, handler=task.decoder) as pool:
        loaded = [task.read(model, item, pool)[1] for item in SampleSource("", samples).items()]
    for first in range(0, len(loaded), batch):
        task.process(model, loaded[first : first + batch])
    for sample, shown in zip(samples, segmenter.refiner.images, strict=True):
        whole = np.asarray(Image.open(sample.image).convert("RGB"))
        middle = whole.shape[1] // 2
        half = whole[:, :middle] if sample.name.endswith("#left") else whole[:, middle:]
        np.testing.assert_array_equal(shown, half)


def test_preset_sets_model_and_settings_and_adds_the_published_miou(
    command: Any, clip_folder: Path, trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The published weights cannot be had in a test: a tiny CLIP goes by their name.
    resolve = cliper.checkpoints.resolve

    def found(name: Any, kind: str, **more: Any) -> Any:
        return resolve(clip_folder if str(name) == "ViT-B/16" else name, kind, **more)

    for module in (cliper.checkpoints, cliper.segmenter):
        monkeypatch.setattr(module, "resolve", found)
    out = tmp_path / "out"
    arguments = ("evaluate", "vit-b-16/voc21", "--data", trees, "-o", out, "--refiner", "none", "--size", 64)
    ended = command(*arguments)
    assert (ended.code, ended.err) == (0, "")
    report = report_of(out)
    preset = cliper.load_preset("vit-b-16/voc21")
    assert report["settings"] == preset.settings.replace(size=64).to_dict()
    assert (report["published"]["miou_percent"], report["published"]["changed"]) == (60.7, ["size 64"])
    assert "published 60.7; other than published: size 64" in ended.out


def test_an_ablation_measures_every_combination_once(
    command: Any, clip_folder: Path, trees: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    common = ("--data", trees, "-m", clip_folder)
    choice = ("--attentions", "fused,identity", "--features", "both", "--refiners", "none,self")
    ended = command("evaluate", "voc21", *common, "--ablation", *choice, "-o", out)
    assert (ended.code, ended.err) == (0, "")
    rows = report_of(out)["variants"]
    made = [(r["settings"]["attention"], r["settings"]["fuse_features"], r["refiner"]) for r in rows]
    assert made == [(a, f, r) for a in ("fused", "identity") for f in (True, False) for r in ("none", "self")]
    assert len({json.dumps(r["matrix"]) for r in rows}) == 8
    for index, (attention, fuse, refiner) in list(enumerate(made))[::5]:
        alone = tmp_path / str(index)
        fused = "--fuse-features" if fuse else "--no-fuse-features"
        more = ("--attention", attention, fused, "--refiner", refiner)
        assert command("evaluate", "voc21", *common, *more, "-o", alone).code == 0
        assert report_of(alone)["matrix"] == rows[index]["matrix"]
    table = [line.split() for line in ended.out.splitlines() if line.startswith(("fused", "identity"))]
    assert [row[:3] for row in table] == [[a, "on" if f else "off", r] for a, f, r in made]


def test_networks_run_once_for_variants_that_share_them(own_tiny: Any, trees: Path) -> None:
    """Class maps are those of each variant alone."""
    models = ModelConfig("tiny", own_tiny.settings)
    changes: dict[str, Any] = {
        "a": {},
        "b": {"logit_scale": 20.0},
        "c": {"attention": "k-k"},
        "d": {"refine_size": 128},
    }
    variants = tuple(Variant(label, models) for label in changes)
    plain, refined = own_tiny, own_tiny.with_refiner("self")
    segmenters = {
        label: (plain if label == "a" else refined).with_settings(plain.settings.replace(**change))
        for label, change in changes.items()
    }
    calls: Counter[str] = Counter()

    def count(owner: Any, name: str) -> Any:
        run = getattr(owner, name)
        setattr(owner, name, lambda *arguments, **options: calls.update([name]) or run(*arguments, **options))

    task = EvaluationTask("voc21", {"root": trees}, variants)
    with DecodePool(1, handler=task.decoder) as pool:
        item = next(SampleSource("", task.samples()).items())
        _, loaded = task.read(segmenters, item, pool)
    alone = {label: task.process({label: one}, [loaded])[0][1][label]() for label, one in segmenters.items()}
    count(own_tiny.encoder, "encode_images")
    count(refined.refiner, "encode")
    ((_, assign_labels),) = task.process(segmenters, [loaded])
    for label, result in alone.items():
        assert np.array_equal(assign_labels[label]().refined, result.refined)
    assert calls == {"encode_images": 2, "encode": 2}  # for each attention, and for each size of the refiner's input


def test_custom_images_and_masks(evaluate: Any, tiny: Any, tmp_path: Path) -> None:
    ended = evaluate("-b", "wall; sky", "--contact-sheet", 2)
    assert (ended.code, ended.err) == (0, "")
    matrix = ConfusionMatrix(3)
    for path in sorted((tmp_path / "images").rglob("*.jpg")):
        mask = tmp_path / "masks" / path.relative_to(tmp_path / "images").with_suffix(".png")
        result = tiny(path, "dog; grass: green grass, lawn", background="wall; sky")
        matrix.update(np.asarray(Image.open(mask)), result.labels)
    report = report_of(tmp_path / "out")
    assert report["matrix"] == matrix.matrix.tolist()
    assert list(report["class_iou"]) == ["background", "dog", "grass"]
    assert report["complete"] is True
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:  # two worst and two best
        assert sheet.height > 4 * 48
        # What is not counted is grey, in four masks and in the legend.
        grey = (np.abs(np.asarray(sheet).astype(int) - 128).max(-1) < 30).any(1)
        assert np.count_nonzero(np.diff(grey.astype(int)) == 1) >= 5
    chosen = worst_and_best(list(read_manifest(tmp_path / "out" / "manifest.jsonl")), "", 2)
    rated = sorted((line["miou"][""], line["input"]) for line in records(tmp_path / "out"))
    assert [record.input for record, _ in chosen] == [rated[i][1] for i in (0, 1, -1, -2)]
