"""Exports of a checkpoint beside the package: equal labels, and seconds per image, in ONNX Runtime and OpenVINO.

    python benchmarks/export.py --photos FOLDER                  # at most 20 photos, float32, float16 and int8
    python benchmarks/export.py --photos FOLDER --images 2 --precisions float32

Needs the extra ``export``. For each photo the package, ONNX Runtime and OpenVINO take turns in the same process, with
the same number of threads; they start from the same pixels and text embeddings, and give class maps. Labels are
assigned by the package from the class maps of each, so that a difference is one of the graphs. A first round is not
counted. ``examples/onnx_segment.py`` is compared by tests/export/test_onnx_example.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cliper
from cliper.export import PRECISIONS, export_model
from cliper.images import load_image
from cliper.ops import assign_labels
from cliper.prompts import parse_classes
from machine import RESULTS, write_report

WORDS = "person; dog; cat; car; bird; horse; chair; bicycle; boat; train"
GOAL = 0.999

Run = Callable[[torch.Tensor], np.ndarray]


def runtimes(folder: Path, segmenter: cliper.Segmenter) -> dict[str, Run]:
    """From pixels [3, H, W] to class maps [C, h, w], by the package and by both runtimes."""
    import onnxruntime
    import openvino

    threads = torch.get_num_threads()
    embeddings = segmenter.encode_text(WORDS)
    count, rows = len(embeddings), segmenter.text_classifier(parse_classes(WORDS), "auto").rows
    inputs = {
        "foreground": rows[:count].numpy(),
        "background": rows[count:-1].numpy(),  # the last row is the mean of the classes
        "logit_scale": np.array(segmenter.settings.logit_scale, np.float32),
        "map_threshold": np.array(segmenter.settings.map_threshold, np.float32),
    }
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / "image.onnx", options, providers=["CPUExecutionProvider"])
    config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(folder / "image.onnx", "CPU", config)
    foreground, background = rows[:count], rows[count:-1]
    return {
        "cliper": lambda pixels: segmenter.class_maps(pixels, foreground, background).numpy(),
        "onnxruntime": lambda pixels: session.run(None, {"pixels": pixels[None].numpy(), **inputs})[0],
        "openvino": lambda pixels: model({"pixels": pixels[None].numpy(), **inputs})[0].copy(),
    }


def measure(runs: dict[str, Run], segmenter: cliper.Segmenter, photos: list[Path]) -> dict[str, Any]:
    """Agreement of labels with the package, and seconds, over all photos."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    agreement: dict[str, list[float]] = {name: [] for name in runs}
    score_threshold, background_threshold = segmenter.settings.thresholds()
    for number, path in enumerate([photos[0], *photos]):
        image = load_image(path)
        pixels, labels = segmenter.preprocess(image), {}
        for name, run in runs.items():
            started = time.perf_counter()
            maps = torch.from_numpy(run(pixels))
            if number:
                seconds[name].append(time.perf_counter() - started)
            labels[name] = assign_labels(
                maps,
                maps,
                (image.height, image.width),
                background_threshold=background_threshold,
                score_threshold=score_threshold,
                normalize=segmenter.settings.normalize,
            )
        for name in runs if number else ():
            agreement[name].append(float((labels[name] == labels["cliper"]).float().mean()))
    return {
        name: {
            "seconds": round(statistics.median(seconds[name]), 4),
            "agreement": round(statistics.mean(agreement[name]), 6),
            "lowest_agreement": round(min(agreement[name]), 6),
            "all_seconds": [round(value, 4) for value in seconds[name]],
        }
        for name in runs
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of JPEGs")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")
    given = parser.parse_args()
    photos = sorted(given.photos.glob("*.jpg"))[: given.images]
    segmenter = cliper.Segmenter.from_pretrained(given.model, device="cpu")
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for precision in given.precisions:
            folder = Path(temporary) / precision
            started = time.perf_counter()
            export_model(folder, given.model, precision=precision)
            rows[precision] = {
                "export_seconds": round(time.perf_counter() - started, 1),
                "image_mb": round((folder / "image.onnx").stat().st_size / 1e6, 1),
                "text_mb": round((folder / "text.onnx").stat().st_size / 1e6, 1),
                **measure(runtimes(folder, segmenter), segmenter, photos),
            }
            print(precision, json.dumps(rows[precision]), flush=True)
    report = {
        "model": given.model,
        "images": len(photos),
        "words": WORDS,
        "goal": GOAL,
        "settings": segmenter.settings.to_dict(),
        "precisions": rows,
    }
    print(write_report("export", report, given.out))


if __name__ == "__main__":
    main()
