"""mIoU of settings, refiners and vocabularies on photos of VOC and ADE20K, each compared with a baseline.

    python benchmarks/accuracy.py --voc VOCdevkit/VOC2012 --ade ADEchallengeData2016

Every other image, in the order of their names, is for choosing settings and templates; the others are for the report.
With the vocabulary "aliases" the prompts of a class are its plain name and all of its synonyms. An image is
encoded once for each distinct settings of the networks. The difference to the baseline has a 95 % interval by bootstrap
over the reported images, the same resamples for both.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

import cliper
from cliper.datasets import Benchmark, BenchmarkTexts, Sample, Vocabulary, find_benchmark, make_vocabulary, synonyms_of
from cliper.evaluation import ConfusionMatrix
from cliper.prompts import ClassPrompt
from cliper.template_selection import choose_templates
from machine import write_report

VOCABULARIES = ("curated", "plain", "synonyms", "distractors:100")
RESAMPLES = 1000
Counts = npt.NDArray[np.int64]  # [images, 3, labels]: pixels of right predictions, ground truth and predictions


class Row(NamedTuple):
    """One line of the table. Rows of one name differ in the vocabulary only; the robust mIoU is over them."""

    name: str
    settings: dict[str, Any] = {}  # noqa: RUF012 - not changed; what differs from the recommended settings
    refiner: str | None = None
    vocabulary: str = "curated"
    background: str = "none"  # of other vocabularies than curated: "none" or "auto"
    baseline: str = "recommended"  # name of the rows of the same vocabulary to compare with
    data: tuple[str, ...] = ("voc21", "ade150")
    choose_templates: bool = False  # of those in the settings, on the half for choosing


def vocabulary_rows(name: str, settings: dict[str, Any] | None = None, **options: Any) -> list[Row]:
    """A row for each vocabulary."""
    return [Row(name, settings or {}, vocabulary=vocabulary, **options) for vocabulary in VOCABULARIES]


VOC, ADE = ("voc21",), ("ade150",)
EDGES = {"edge_weight": 30.0, "edge_sigma": 0.05}
NEAR = {"refine_neighbors": 20, "refine_alpha": 0.8}
WINDOWS = {"window": 224}
MEAN, MERGED, IMAGENET = {"merge_synonyms": "mean"}, {"merge_synonyms": "logsumexp"}, {"templates": "imagenet80"}
ROWS = [
    *vocabulary_rows("recommended"),
    *vocabulary_rows("automatic background", background="auto", data=VOC),
    Row("automatic background", vocabulary="plain", background="auto", data=ADE),
    *vocabulary_rows("64 chosen background words", {"background_count": 64}, background="auto", data=VOC),
    Row("aliases by their mean", MEAN, vocabulary="aliases", background="auto"),
    Row("aliases by log-sum-exp", MERGED, None, "aliases", "auto", "aliases by their mean"),
    Row("prompts by log-sum-exp", MERGED),
    Row("chosen of 15 templates", choose_templates=True),
    Row("80 templates", IMAGENET),
    Row("chosen of 80 templates", IMAGENET, baseline="80 templates", choose_templates=True),
    *vocabulary_rows("self", refiner="self", data=VOC),
    *vocabulary_rows("self, automatic background", refiner="self", background="auto", baseline="self", data=VOC),
    Row("self", refiner="self", data=ADE),
    Row("self by a solve", {"refine_propagation": "solve"}, "self", baseline="self"),
    Row("self by a solve, 20 neighbours", {"refine_propagation": "solve", **NEAR}, "self", baseline="self"),
    Row("self, edges", EDGES, "self", baseline="self", data=VOC),
    Row("edges", EDGES, data=VOC),
    Row("mirror image", {"flip": True}),
    Row("mirror image, against self", {"flip": True}, baseline="self", data=VOC),
    Row("two sizes", {"extra_sizes": (448,)}),
    Row("5 classes of each image", {"class_top": 5}),
    Row("20 classes of each image", {"class_top": 20}, data=ADE),
    Row("classes above half of the best", {"class_min_score": 0.5}),
    Row("windows", WINDOWS),
    Row("windows in context", {**WINDOWS, "window_context": True}, baseline="windows", data=VOC),
]


class Case(NamedTuple):
    """A row on a data set, ready to be measured."""

    row: Row
    segmenter: cliper.Segmenter
    vocabulary: Vocabulary


def find_vocabulary(benchmark: Benchmark, row: Row) -> Vocabulary:
    """The vocabulary of a row."""
    background = "auto" if row.background == "auto" else ()
    if row.vocabulary != "aliases":
        return make_vocabulary(benchmark, row.vocabulary, background=background)
    plain = make_vocabulary(benchmark, "plain", background=background)
    classes = tuple(
        ClassPrompt(one.name, (*one.prompts, *others))
        for one, others in zip(plain.texts.classes, synonyms_of(benchmark), strict=True)
    )
    return Vocabulary(row.vocabulary, BenchmarkTexts(classes, plain.texts.background))


def make_cases(
    segmenter: cliper.Segmenter, benchmark: Benchmark, rows: list[Row], choose: Sequence[Sample]
) -> list[Case]:
    """One for each row; without a background class nothing is background, as ``cliper evaluate`` sets it."""
    changes = {"score_threshold": 0.0, "background_threshold": 1e-4} if 0 in benchmark.ignore else {}
    base = segmenter.settings.replace(**changes)
    refined = {name: segmenter.with_refiner(name) for name in dict.fromkeys(row.refiner for row in rows)}
    cases, features = [], []
    for row in rows:
        vocabulary = find_vocabulary(benchmark, row)
        changed = refined[row.refiner].with_settings(base.replace(**row.settings))
        if row.choose_templates:
            images = (benchmark.read_whole(sample)[0] for sample in choose)
            features = features or [changed.encode_image(image).views[0] for image in images]
            texts = vocabulary.texts
            chosen = choose_templates(changed, features, texts.classes, texts.background or None)
            print(f"{benchmark.name}: {row.name}: {len(chosen)}: {'; '.join(chosen)}", file=sys.stderr, flush=True)
            changed = changed.with_settings(changed.settings.replace(templates=chosen))
        cases.append(Case(row, changed, vocabulary))
    return cases


def measure(benchmark: Benchmark, samples: list[Sample], cases: list[Case]) -> list[Counts]:
    """Pixels of each case."""
    counts: list[list[Any]] = [[] for _ in cases]
    # Features for a choice of classes can be used without one, too.
    order = sorted(range(len(cases)), key=lambda index: not cases[index].segmenter.settings.chooses_classes)
    for number, sample in enumerate(samples, start=1):
        image, truth = benchmark.read_whole(sample)
        encoded: list[Any] = []
        inputs = [cases[0].segmenter.preprocess(image)]  # all rows have one size
        pixels: dict[Any, Any] = {}  # cases with the same words and settings are computed once
        for index in order:
            row, segmenter, vocabulary = cases[index]
            texts = vocabulary.texts
            key = (texts, segmenter.settings, row.refiner)
            if key not in pixels:
                # What an earlier row's networks gave is taken from there.
                encoded += segmenter.encode_images([image], inputs, [[one] for one in encoded])
                result = segmenter(encoded[-1], texts.classes, texts.background or None)
                matrix = ConfusionMatrix(benchmark.num_labels + len(vocabulary.distractors), benchmark.ignore)
                matrix.update(truth, result.labels)
                counted = matrix.matrix
                pixels[key] = torch.stack([counted.diagonal(), counted.sum(1), counted.sum(0)]).numpy()
            counts[index].append(pixels[key])
        print(f"{benchmark.name}: {number} of {len(samples)} images", file=sys.stderr, flush=True)
    return [np.stack(found) for found in counts]


def measure_seconds(benchmark: Benchmark, samples: list[Sample], cases: list[Case]) -> list[float]:
    """Median seconds of each case from the decoded image to labels, cases in turn on each image."""
    seconds: list[list[float]] = [[] for _ in cases]
    for sample in samples:
        image, _ = benchmark.read_whole(sample)
        for used, (_, segmenter, vocabulary) in zip(seconds, cases, strict=True):
            started = time.perf_counter()
            segmenter(image, vocabulary.texts.classes, vocabulary.texts.background or None)
            used.append(time.perf_counter() - started)
    return [float(np.median(used)) for used in seconds]


def class_iou(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """IoU [..., labels] of pixels [..., 3, labels]; NaN for classes that are not in the ground truth."""
    right, truth, predicted = np.moveaxis(pixels, -2, 0).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.where(truth > 0, right / (truth + predicted - right), np.nan)


def miou(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Mean IoU [...] over the classes that occur in the ground truth."""
    return np.nanmean(class_iou(pixels), axis=-1)


def miou_all(pixels: npt.NDArray[Any], ignore: tuple[int, ...]) -> float:
    """Mean IoU over the classes that occur in ground truth or prediction, 0 for those that are only predicted."""
    occurs = (pixels[1] > 0) | (pixels[2] > 0)
    occurs[[label for label in ignore if label == 0]] = False
    return float(np.nan_to_num(class_iou(pixels))[occurs].mean())


def difference(pixels: Counts, baseline: Counts) -> dict[str, float]:
    """Difference of the mIoU of the same images, with the 95 % interval over resampled images."""
    images = len(pixels)
    weights = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
    resampled = [miou(np.tensordot(weights, counts, axes=1)) for counts in (pixels, baseline)]
    low, high = np.percentile(resampled[0] - resampled[1], [2.5, 97.5])
    value = miou(pixels.sum(0)) - miou(baseline.sum(0))
    return {"miou": round(float(value), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def summarize(
    benchmark: Benchmark, rows: list[Row], counts: list[Counts], seconds: list[float]
) -> list[dict[str, Any]]:
    """The numbers of each row; those of the report are from the second half."""
    names = ["background", *benchmark.class_names]
    reported = {(row.name, row.vocabulary): pixels[1::2] for row, pixels in zip(rows, counts, strict=True)}
    found = []
    for row, pixels, used in zip(rows, counts, seconds, strict=True):
        halves = {"choose": pixels[::2].sum(0), "report": pixels[1::2].sum(0)}
        iou = dict(zip(names, class_iou(halves["report"]), strict=False))  # distractors have none
        entry: dict[str, Any] = {
            **row._asdict(),
            "miou": {half: round(float(miou(sums)), 4) for half, sums in halves.items()},
            "miou_all": round(miou_all(halves["report"], benchmark.ignore), 4),
            "seconds_per_image": round(used, 4),
            "iou": {name: round(float(value), 4) for name, value in iou.items() if value == value},
        }
        baseline = reported.get((row.baseline, row.vocabulary))
        if row.name != row.baseline and baseline is not None:
            entry["difference"] = difference(pixels[1::2], baseline)
        same = [miou(other.sum(0)) for (name, _), other in reported.items() if name == row.name]
        if len(same) > 1:
            entry["robust_miou"] = {"mean": round(float(np.mean(same)), 4), "minimum": round(float(min(same)), 4)}
        found.append(entry)
    return found


def halve_threads() -> None:
    """Leave half of the cores to the process of the other data set."""
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))


def measure_data(
    name: str, root: Path, rows: list[Row], args: argparse.Namespace
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Number of images of both halves, and the summary of each row."""
    torch.set_grad_enabled(False)
    halve_threads()
    benchmark = find_benchmark(name)
    samples = sorted(benchmark.samples(root), key=lambda sample: sample.name)[: args.limit]
    asked = [row for row in rows if name in row.data]
    cases = make_cases(cliper.Segmenter.from_pretrained(args.model), benchmark, asked, samples[::2])
    counts = measure(benchmark, samples, cases)
    seconds = measure_seconds(benchmark, samples[1::2][: args.timed], cases)
    summary = summarize(benchmark, asked, counts, seconds)
    for entry in summary:
        print(f"{name} {entry['name']:40s} {entry['vocabulary']:16s} {entry['miou']} {entry.get('difference', '')}")
    return {"choose": len(samples[::2]), "report": len(samples[1::2])}, summary


def main() -> None:
    """Measure and write ``results/accuracy.json``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--voc", type=Path, required=True, help="the folder VOCdevkit/VOC2012")
    parser.add_argument("--ade", type=Path, required=True, help="the folder ADEchallengeData2016")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="names of the rows to measure; all by default")
    parser.add_argument("--limit", type=int, help="images of each data set")
    parser.add_argument("--timed", type=int, default=5, help="images of each data set on which seconds are measured")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = [row for row in ROWS if args.rows is None or row.name in args.rows]
    if not rows:
        parser.error(f"--rows: expected some of {', '.join(dict.fromkeys(row.name for row in ROWS))}")
    roots = {"voc21": args.voc.absolute().parents[1], "ade150": args.ade.absolute().parent}
    folders = {name: root for name, root in roots.items() if any(name in row.data for row in rows)}
    segmenter = cliper.Segmenter.from_pretrained(args.model)
    report: dict[str, Any] = {
        "model": segmenter.checkpoint.name,
        "limit": args.limit,
        "resamples": RESAMPLES,
        "recommended": segmenter.settings.to_dict(),
        "images": {},
        "rows": {},
    }
    halve_threads()  # in this process for the record of the machine only
    with ProcessPoolExecutor(len(folders), multiprocessing.get_context("spawn")) as pool:
        found = pool.map(measure_data, folders, folders.values(), [rows] * len(folders), [args] * len(folders))
        for name, (images, summary) in zip(folders, found, strict=True):
            report["images"][name], report["rows"][name] = images, summary
    print(f"wrote {write_report('accuracy', report, args.out)}")


if __name__ == "__main__":
    main()
