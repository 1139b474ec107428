"""Images per second and peak memory on one GPU, and equality with the CPU; unattended, under 8 minutes.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --model ViT-B/16 --refiner sd2.1       # real weights, if they are on the machine
    python benchmarks/gpu.py --device cpu --tiny                    # tiny shapes, for a test of this script

By default the CLIP has ViT-B/16's shape and the refiner Stable Diffusion 2.1's, both with random weights: the time of
an operation does not depend on the weights. Images are 448x336 pixels of noise, which at size 336 are 28x21 patches.
For each dtype, with and without ``torch.compile`` of the networks, and for each batch size: images per second from
images to refined class maps, the median of the repetitions, and the peak of the GPU allocator. When the time budget is
used up, what is left is listed as skipped.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import cliper
from clip_stage import clip_config
from cliper.devices import resolve_device, tf32_disabled
from cliper.errors import SettingsError, short_reason
from machine import write_report
from random_pipeline import build

CLASSES = ["horse", "grass", "sky", "dog"]
SIZE = (448, 336)


def make_clip(folder: Path, shape: str) -> Path:
    """A random CLIP of a shape, with the tokenizer of the bundled checkpoint."""
    from transformers import CLIPModel

    torch.manual_seed(0)
    config = clip_config(shape)
    config.text_config.vocab_size = 49408
    CLIPModel(config).save_pretrained(folder)
    mini = Path(cliper.__file__).parent / "checkpoints" / "mini"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((mini / name).read_bytes())
    return folder


def images(count: int) -> list[Image.Image]:
    """Smooth noise, as :mod:`clip_stage` explains."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize(SIZE, Image.Resampling.BICUBIC) for one in coarse]


def run(segmenter: cliper.Segmenter, batch: list[Image.Image]) -> list[torch.Tensor]:
    """Refined class maps of images."""
    encoded = segmenter.encode_images(batch, [segmenter.preprocess(image) for image in batch])
    return [segmenter.predict_maps(one, CLASSES, "none")[1] for one in encoded]


def synchronize(device: torch.device) -> None:
    """Wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(segmenter: cliper.Segmenter, batch: int, repeats: int) -> dict[str, Any]:
    """Images per second, peak memory, and the graphs compiled before and (wrongly) while it was measured."""
    device, inputs = segmenter.encoder.device, images(batch)
    segmenter.batch_size = batch
    if segmenter.refiner is not None:
        segmenter.refiner.batch_size = batch
    started, graphs = time.perf_counter(), count_graphs()
    for _ in range(2):  # compiles (again, once position embeddings are cached), and chooses kernels
        run(segmenter, inputs)
    synchronize(device)
    warm_up, compiled = time.perf_counter() - started, count_graphs()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run(segmenter, inputs)
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    rate = batch / statistics.median(seconds)
    return {
        "images_per_second": round(rate, 2),
        "warm_up_seconds": round(warm_up, 2),
        "peak_memory": peak,
        "graphs": compiled - graphs,
        "graphs_while_measured": count_graphs() - compiled,
    }


def equality(load: Callable[..., cliper.Segmenter], device: torch.device) -> dict[str, Any]:
    """Differences of refined maps and labels to those of the CPU in float32, for each dtype of the device."""
    [image] = images(1)
    found: dict[str, Any] = {}
    with torch.no_grad():
        for refine in (False, True):
            reference = load("cpu", "float32", refine)(image, CLASSES, "none")
            for dtype in ("float32", "float16", "bfloat16"):
                name = f"{'with' if refine else 'without'} compensation, {dtype}"
                try:
                    with tf32_disabled():
                        result = load(device, dtype, refine)(image, CLASSES, "none")
                except Exception as error:  # float16 overflowed, perhaps; the other dtypes are compared all the same
                    found[name] = {"error": f"{type(error).__name__}: {short_reason(error)}"}
                    continue
                found[name] = {
                    "largest_map_difference": float(np.abs(result.refined - reference.refined).max()),
                    "equal_labels": float((result.labels == reference.labels).mean()),
                }
    return found


def main() -> int:
    """Measure and write ``results/gpu.json``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes")
    parser.add_argument("--model", help="a checkpoint in place of random weights of ViT-B/16's shape")
    parser.add_argument("--refiner", help="a refiner in place of random weights of Stable Diffusion 2.1's shape")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--budget", type=float, default=360.0, help="seconds")
    parser.add_argument("--limit", type=float, default=460.0, help="seconds until the process ends in any case")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--compile-backend", default="inductor", help="eager: to test this script without a compiler")
    parser.add_argument("--out", type=Path, help="folder of the report")
    args = parser.parse_args()
    started = time.perf_counter()
    try:
        device = resolve_device(args.device)
    except SettingsError as error:
        print(f"gpu.py: {error}; give --device cpu --tiny for a test", file=sys.stderr)
        return 2
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        folder = Path(name)

        def stop() -> None:  # in a compilation, which the budget does not end; the rows until now are saved
            print(f"stopped at the time limit; {len(rows)} rows are saved", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(0 if rows else 1)

        timer = threading.Timer(args.limit, stop)
        timer.daemon = True
        timer.start()
        model: str | Path = args.model or make_clip(folder / "clip", "tiny" if args.tiny else "ViT-B/16")
        refiner: str | Path | None = args.refiner
        if refiner is None:
            build(refiner := folder / "sd", "sd2.1", args.tiny)
        settings = cliper.Settings(refine_size=128 if args.tiny else None)

        def load(device: str | torch.device, dtype: str, refine: bool) -> cliper.Segmenter:
            return cliper.Segmenter.from_pretrained(model, refiner if refine else None, settings, device, dtype)

        report: dict[str, Any] = {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            "weights": {
                "clip": args.model or "random",
                "refiner": args.refiner or "random, Stable Diffusion 2.1's shape",
            },
            "tiny": args.tiny,
            "equality_with_cpu": equality(load, device),
        }
        report["equality_seconds"] = round(time.perf_counter() - started, 1)

        def save() -> Path:  # after each row: a compilation that takes long may end with the process
            measured = {"rows": rows, "skipped": skipped, "seconds": round(time.perf_counter() - started, 1)}
            return write_report("gpu", report | measured, args.out)

        # Compilers last, and that of the refiner after all: one that takes long leaves the other rows as they are.
        for compiled, refine, dtype in itertools.product((False, True), (False, True), ("float16", "bfloat16")):
            if compiled and args.no_compile:
                continue
            segmenter = load(device, dtype, refine)
            if compiled:
                compile_networks(segmenter, args.compile_backend)
            for batch in args.batches:
                row = {"dtype": dtype, "compensation": refine, "compiled": compiled, "batch": batch}
                if time.perf_counter() - started > args.budget:
                    skipped.append({**row, "reason": "time budget"})
                    continue
                try:
                    rows.append({**row, **measure(segmenter, batch, args.repeats)})
                    print(rows[-1], flush=True)
                except Exception as error:  # a batch that does not fit, or a compiler that is not there
                    skipped.append({**row, "reason": f"{type(error).__name__}: {short_reason(error)}"})
                save()
            del segmenter
            if device.type == "cuda":
                torch.cuda.empty_cache()
    timer.cancel()
    print(f"wrote {save()}")
    return 0


def compile_networks(segmenter: cliper.Segmenter, backend: str) -> None:
    """Compile the image tower and the refiner's networks, which takes place at their first call.

    Of the UNet those parts are compiled that run as they are: its attention has processors of its own in each call, and
    ends it by an exception.
    """
    from diffusers.models.attention import FeedForward
    from diffusers.models.resnet import ResnetBlock2D

    torch.compiler.reset()  # its limit of compilations is for all segmenters together
    dynamo: Any = torch._dynamo
    dynamo.config.recompile_limit = 128  # blocks of one class with other numbers of channels
    vision: Any = segmenter.encoder.vision
    vision._run_layers = torch.compile(vision._run_layers, backend=backend)
    refiner: Any = segmenter.refiner
    if refiner is not None:
        refiner.vae.encoder.compile(backend=backend)
        for module in refiner.unet.modules():
            if isinstance(module, ResnetBlock2D | FeedForward):
                module.compile(backend=backend)


def count_graphs() -> int:
    """The number of graphs that ``torch.compile`` has made in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


if __name__ == "__main__":
    sys.exit(main())
