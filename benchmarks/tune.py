"""Whether settings that ``cliper tune`` chooses on 20 images of VOC are better on the others.

    python benchmarks/tune.py --voc VOCdevkit/VOC2012

Images are drawn at random, at least one with each class, as a person would label them; several draws. The classes are
VOC's names, the background is "auto". mIoU (voc21) of the given and of the chosen settings on the other images is at
all of their pixels.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import cliper
from cliper.datasets import find_benchmark
from cliper.evaluation import ConfusionMatrix
from cliper.evaluation.labelled_images import LabelledImage, reduce_image
from cliper.evaluation.tune import TuneResult, tune
from cliper.prompts import parse_classes
from machine import write_report

NAMES = find_benchmark("voc20").class_names


def read_mask(root: Path, name: str) -> np.ndarray:
    """Labels [H, W]: 0 background, 1 to 20, 255 ignored."""
    with Image.open(root / "SegmentationClassAug" / f"{name}.png") as mask:
        return np.asarray(mask)


def draw_names(root: Path, names: list[str], count: int, seed: int) -> list[str]:
    """Images at random; one is taken only if it has one of the classes that are in the fewest images so far."""
    rest = random.Random(seed).sample(names, len(names))
    labels = {name: set(np.unique(read_mask(root, name)).tolist()) - {0, 255} for name in rest}
    found: list[str] = []
    while len(found) < count:
        seen = {label: sum(label in labels[name] for name in found) for label in range(1, len(NAMES) + 1)}
        fewest = min(seen.values())
        rare = {label for label, times in seen.items() if times == fewest}
        chosen = next((name for name in rest if labels[name] & rare), rest[0])
        rest.remove(chosen)
        found.append(chosen)
    return found


def measure(segmenter: cliper.Segmenter, encoded: dict, root: Path, names: list[str], background: object) -> dict:
    """mIoU and IoU of each label, in percent."""
    matrix = ConfusionMatrix(len(NAMES) + 1)
    for name in names:
        matrix.update(read_mask(root, name), segmenter(encoded[name], list(NAMES), background).labels)
    iou = zip(("background", *NAMES), matrix.iou.tolist(), strict=True)
    return {"miou": round(100 * matrix.miou, 2), "iou": {name: round(100 * value, 2) for name, value in iou}}


def trial(segmenter: cliper.Segmenter, encoded: dict, root: Path, count: int, seed: int) -> dict:
    """One draw of images: the chosen settings, and both mIoU on the other images."""
    few = draw_names(root, list(encoded), count, seed)
    others = [name for name in encoded if name not in few]
    images = [reduce_image(LabelledImage(encoded[name], read_mask(root, name))) for name in few]
    started = time.perf_counter()
    result: TuneResult = tune(segmenter, images, parse_classes(list(NAMES)))
    seconds = time.perf_counter() - started
    names = result.background
    shown = names if isinstance(names, str) else [item.name for item in names]
    tuned = segmenter.with_settings(result.settings)
    changed = ("logit_scale", "score_threshold", "background_threshold")
    return {
        "seed": seed,
        "images": few,
        "improved": result.improved,
        "settings": {name: getattr(result.settings, name) for name in changed},
        "background": shown,
        "cross_validation": {"before": round(100 * result.before.miou, 2), "after": round(100 * result.after.miou, 2)},
        "others": {
            "images": len(others),
            "before": measure(segmenter, encoded, root, others, "auto"),
            "after": measure(tuned, encoded, root, others, names if isinstance(names, str) else list(names)),
        },
        "search_seconds": round(seconds, 1),
    }


def main() -> None:
    """Measure, and write ``results/tune.json`` after each draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--voc", type=Path, required=True, help="VOCdevkit/VOC2012")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--refiners", nargs="+", default=["none", "self"])
    parser.add_argument("--count", type=int, default=20, help="images to tune on")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--limit", type=int, help="images of the data set")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    names = sorted(path.stem for path in (args.voc / "SegmentationClassAug").glob("*.png"))[: args.limit]
    report: dict = {"count": args.count, "trials": {}}
    for refiner in args.refiners:
        segmenter = cliper.Segmenter.from_pretrained(args.model, refiner=None if refiner == "none" else refiner)
        report["model"] = segmenter.checkpoint.name
        report["given"] = segmenter.settings.to_dict()
        started = time.perf_counter()
        encoded = {name: segmenter.encode_image(args.voc / "JPEGImages" / f"{name}.jpg") for name in names}
        seconds = (time.perf_counter() - started) / len(names)
        trials = []
        for seed in range(args.draws):
            one = trial(segmenter, encoded, args.voc, args.count, seed)
            trials.append({**one, "encode_seconds": round(seconds, 3)})
            others = {when: one["others"][when]["miou"] for when in ("before", "after")}
            print(refiner, seed, one["cross_validation"], others, one["settings"], one["search_seconds"], flush=True)
            report["trials"][refiner] = trials
            print(f"wrote {write_report('tune', report, args.out)}", flush=True)  # after each: a run takes long


if __name__ == "__main__":
    main()
