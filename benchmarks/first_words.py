"""mIoU of checkpoints on photos of VOC and ADE20K, as a person asks: class names, automatic background.

    python benchmarks/first_words.py --voc VOCdevkit/VOC2012 --ade ADEchallengeData2016 --models mini path/to/other

Each photo is encoded once for each model and refiner; words, background filter and thresholds change after that.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import cliper
from cliper.datasets import find_benchmark
from cliper.evaluation import ConfusionMatrix
from machine import write_report


def photos(root: Path, images: str, masks: str, limit: int | None) -> Iterator[tuple[Path, np.ndarray]]:
    """Photo and ground truth, in the order of their names."""
    for path in sorted((root / masks).glob("*.png"))[:limit]:
        with Image.open(path) as mask:
            yield root / images / f"{path.stem}.jpg", np.asarray(mask)


def measure(segmenter: cliper.Segmenter, asked: dict[str, tuple[str, list[str]]], args: argparse.Namespace) -> dict:
    """Confusion matrices by question and background filter."""
    off = segmenter.with_settings(segmenter.settings.replace(background_similarity=1.0))
    ways = {"filtered": segmenter, "not filtered": off}
    matrices = {
        (question, way): ConfusionMatrix(len(names) + 1, ignore=(255, 0) if data == "ade" else (255,))
        for question, (data, names) in asked.items()
        for way in ways
    }
    started = time.perf_counter()
    trees = {
        "voc": photos(args.voc, "JPEGImages", "SegmentationClassAug", args.limit),
        "ade": photos(args.ade, "images/validation", "annotations/validation", args.limit),
    }
    for data, tree in trees.items():
        for photo, truth in tree:
            encoded = segmenter.encode_image(photo)
            for question, (belongs, names) in asked.items():
                if belongs != data:
                    continue
                present = [int(label) for label in np.unique(truth) if 0 < label < 255]
                labels = present if "present" in question else range(1, len(names) + 1)
                if not labels:
                    continue
                table = np.array([0, *labels])
                for way, chosen in ways.items():
                    result = chosen(encoded, [names[label - 1] for label in labels])
                    matrices[question, way].update(truth, table[result.labels])
    seconds = time.perf_counter() - started
    report: dict = {"seconds": round(seconds, 1)}
    for (question, way), matrix in matrices.items():
        iou = matrix.iou
        names = ["background", *asked[question][1]]
        report.setdefault(question, {})[way] = {
            "miou": round(matrix.miou, 4),
            "pixel_accuracy": round(matrix.pixel_accuracy, 4),
            "iou": {name: round(value, 3) for name, value in zip(names, iou.tolist(), strict=True) if value == value},
        }
    return report


def main() -> None:
    """Measure and write ``results/first_words.json``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--voc", type=Path, required=True)
    parser.add_argument("--ade", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["mini"])
    parser.add_argument("--refiners", nargs="+", default=["none", "self"])
    parser.add_argument("--limit", type=int, help="photos of each data set")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    voc = list(find_benchmark("voc20").class_names)
    ade = list(find_benchmark("ade150").class_names)
    asked = {"voc, all named": ("voc", voc), "voc, present named": ("voc", voc), "ade, present named": ("ade", ade)}
    report = {"models": {}, "limit": args.limit}
    torch.set_grad_enabled(False)
    for model in args.models:
        for refiner in args.refiners:
            segmenter = cliper.Segmenter.from_pretrained(model, refiner=None if refiner == "none" else refiner)
            found = measure(segmenter, asked, args)
            name = f"{Path(segmenter.checkpoint.name).name}, {refiner}"
            report["models"][name] = {**found, "settings": segmenter.settings.to_dict()}
            for question in asked:
                shown = {way: f"{values['miou']:.3f}" for way, values in found[question].items()}
                print(f"{name:40s} {question:20s} {shown}", flush=True)
    print(f"wrote {write_report('first_words', report, args.out)}")


if __name__ == "__main__":
    main()
