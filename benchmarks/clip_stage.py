"""Seconds and memory of the CLIP stage (pixels and texts to class maps), compared with the published way.

The published code is not part of this project. ``tests/oracle/reference.py``, plain code for the method that agrees
with it, represents it in two forms: unchanged, and with query and key projections of the last layer for every level,
which the published code computes without using them.

    python benchmarks/clip_stage.py            # ViT-B/16, 336 px, 20 + 25 texts, two threads

All run alternating in one process, A B C A B C; memory is measured in a separate process each, above the model's.

    python benchmarks/clip_stage.py --floor --shape mini --height 224 --width 294 --baseline ../old/src

compares the time of ``Segmenter.class_maps`` with its floor, and with another version of the package: each version in a
process of its own, alternating. The floor is the number of operations of the method's matrix products divided by a
rate, measured in the same run: "best rate" is the highest of any of these products' shapes, "own rates" takes each
product at the best rate of its own shape. A rate is the best of three implementations and of all repetitions.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from machine import RESULTS, peak_growth, write_report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SHAPES = {  # hidden, intermediate, layers, heads, patch, joint width, activation
    "tiny": (64, 128, 3, 2, 16, 32, "quick_gelu"),
    "mini": (384, 1536, 12, 6, 14, 384, "gelu"),
    "ViT-B/16": (768, 3072, 12, 12, 16, 512, "quick_gelu"),
    "ViT-L/14": (1024, 4096, 24, 16, 14, 768, "quick_gelu"),
}
SCALE, THRESHOLD = 100.0, 0.1
PUBLISHED, PLAIN, OURS = "published way (oracle, last q and k too)", "oracle", "cliper"


# Measures one version of the package: answers each line of its input with the seconds of a call, by the clock and of
# processor time.
WORKER = """
import sys, time, torch, cliper
folder, threads, height, width, foreground, background = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
segmenter = cliper.Segmenter.from_pretrained(folder)
torch.manual_seed(0)
noise = torch.randn(1, 3, 8, 8)  # as smooth as a photo: attention to white noise has subnormal numbers, which are slow
pixels = torch.nn.functional.interpolate(noise, size=(height, width), mode="bilinear")[0]
texts = torch.nn.functional.normalize(torch.randn(foreground + background, JOINT), dim=-1)
for _ in sys.stdin:
    started, processor = time.perf_counter(), time.process_time()
    segmenter.class_maps(pixels, texts[:foreground], texts[foreground:])
    print(time.perf_counter() - started, time.process_time() - processor, flush=True)
"""


def clip_config(shape: str) -> Any:
    """A CLIP of this shape with a small text tower."""
    from transformers import CLIPConfig

    hidden, intermediate, layers, heads, patch, joint, activation = SHAPES[shape]
    return CLIPConfig(
        vision_config={
            "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers,
            "num_attention_heads": heads, "image_size": 14 * patch, "patch_size": patch, "hidden_act": activation,
        },
        text_config={"num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 64},
        projection_dim=joint,
    )  # fmt: skip


def products(shape: str, height: int, width: int, texts: int) -> list[tuple[int, int, int, int, int]]:
    """The method's matrix products of one image: (B, N, K, M, count), B products [N, K] x [K, M] at a time."""
    hidden, intermediate, layers, heads, patch, joint, _ = SHAPES[shape]
    patches, head = height // patch * (width // patch), hidden // heads
    tokens, early = patches + 1, layers - 1
    return [
        (1, patches, 3 * patch**2, hidden, 1),
        (1, tokens, hidden, hidden, 4 * early + 2 * layers),  # q, k, v and out; v and out of the last layer for each
        (1, tokens, hidden, intermediate, early),
        (1, tokens, intermediate, hidden, early),
        (heads, tokens, head, tokens, early),
        (heads, tokens, tokens, head, early + layers),
        (1, patches, hidden, joint, layers),
        (1, patches, joint, texts, layers),
    ]


def product_ways(batch: int, rows: int, inner: int, outer: int) -> list[Callable[[], object]]:
    """Implementations of one product, on random numbers."""
    from cliper.kernels.linear import packed_linear

    x, y, out = torch.randn(batch, rows, inner), torch.randn(batch, inner, outer), torch.empty(batch, rows, outer)
    if batch > 1:
        return [lambda: torch.bmm(x, y, out=out)]
    weight = y[0].t().contiguous()
    packed = packed_linear(weight, rows)
    return [lambda: torch.mm(x[0], y[0], out=out[0]), lambda: F.linear(x[0], weight), lambda: packed(x[0])]


@contextlib.contextmanager
def worker(source: Path, folder: str, joint: int, options: argparse.Namespace) -> Iterator[Callable[[], list[float]]]:
    """A process with the package of a source folder; the function calls it, and gives the seconds (see WORKER)."""
    settings = (options.threads, options.height, options.width, options.foreground, options.background)
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER.replace("JOINT", str(joint)), folder, *map(str, settings)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        env=os.environ | {"PYTHONPATH": str(source.resolve()), "OMP_NUM_THREADS": str(options.threads)},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def call() -> list[float]:
        stdin.write("run\n")
        return [float(word) for word in stdout.readline().split()]

    try:
        yield call
    finally:
        stdin.close()
        process.wait()


def compare_with_floor(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each version, the floors, and their ratios."""
    from transformers import CLIPModel

    patch, joint = SHAPES[options.shape][4:6]
    options.height, options.width = options.height // patch * patch, options.width // patch * patch
    sources = {"cliper": Path(__file__).parents[1] / "src"}
    if options.baseline:
        sources["baseline"] = options.baseline
    shapes = products(options.shape, options.height, options.width, options.foreground + options.background + 1)
    operations = [2 * b * n * k * m * count for b, n, k, m, count in shapes]
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    processor: dict[str, list[float]] = {name: [] for name in sources}
    best = [float("inf")] * len(shapes)
    with tempfile.TemporaryDirectory() as temporary, torch.inference_mode(), contextlib.ExitStack() as stack:
        folder = "mini"
        if options.shape != "mini":
            folder = temporary
            CLIPModel(clip_config(options.shape)).save_pretrained(folder)
        runs = {name: stack.enter_context(worker(s, folder, joint, options)) for name, s in sources.items()}
        implementations = [product_ways(*shape[:4]) for shape in shapes]
        for run in runs.values():
            run(), run()  # warms up
        for _ in range(options.repeats):
            for name, run in runs.items():
                for values, value in zip((seconds[name], processor[name]), run(), strict=True):
                    values.append(value)
            for index, functions in enumerate(implementations):
                for function in functions * 3:
                    started = time.perf_counter()
                    function()
                    best[index] = min(best[index], time.perf_counter() - started)
    own = sum(count * time for (*_, count), time in zip(shapes, best, strict=True))
    rates = [2 * b * n * k * m / time / 1e9 for (b, n, k, m, _), time in zip(shapes, best, strict=True)]
    floors = {"best rate": sum(operations) / max(rates) / 1e9, "own rates": own}
    return {
        "gflop": sum(operations) / 1e9,
        "products": [
            {"shape": list(shape[:4]), "count": shape[4], "gflop_per_second": rate}
            for shape, rate in zip(shapes, rates, strict=True)
        ],
        "floor_seconds": floors,
        "seconds": {name: {"min": min(s), "median": statistics.median(s), "all": s} for name, s in seconds.items()},
        "processor_seconds": {name: {"min": min(s), "median": statistics.median(s)} for name, s in processor.items()},
        "times_the_floor": {
            name: {floor: min(s) / value for floor, value in floors.items()} for name, s in seconds.items()
        },
    }


def ways(
    shape: str, height: int, width: int, foreground: int, background: int
) -> dict[str, Callable[[], torch.Tensor]]:
    """The ways, on equal random weights and inputs."""
    from transformers import CLIPModel

    from cliper.checkpoints.clip_config import ClipConfig
    from cliper.encoders.clip import ClipEncoder
    from cliper.ops import RECIPES, build_text_classifier, class_maps
    from oracle import reference

    hidden, _, layers, _, patch, joint, _ = SHAPES[shape]
    config = clip_config(shape)
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    pixels = torch.randn(3, height // patch * patch, width // patch * patch)
    fg, bg = torch.randn(foreground, joint), torch.randn(background, joint)

    tokens = torch.randn(1 + height // patch * (width // patch), hidden)

    @torch.no_grad()
    def plain() -> torch.Tensor:
        return reference.coarse(model, pixels, fg, bg, scale=SCALE, threshold=THRESHOLD)

    @torch.no_grad()
    def published() -> torch.Tensor:
        maps = plain()
        attention = model.vision_model.encoder.layers[-1].self_attn
        for _ in range(layers):
            attention.q_proj(tokens)
            attention.k_proj(tokens)
        return maps

    # Its own copy of the weights: it lays them out anew, which the other way shall not gain by.
    copied = CLIPModel(config).eval()
    copied.load_state_dict(model.state_dict())
    encoder = ClipEncoder(ClipConfig.from_dict(config.to_dict()), copied.state_dict(), Path())

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        recipe = RECIPES["conference"]
        features = encoder.encode_images(pixels[None], recipe=recipe, attention="fused", layers=range(layers))[0]
        maps = class_maps(
            features.embeddings, features.affinity, build_text_classifier(fg, bg), foreground,
            logit_scale=SCALE, map_threshold=THRESHOLD, selected=-1, recipe=recipe,
        )  # fmt: skip
        return maps.reshape(foreground, *features.grid)

    return {PUBLISHED: published, PLAIN: plain, OURS: ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="ViT-B/16")
    parser.add_argument("--height", type=int, default=336)
    parser.add_argument("--width", type=int, default=448)
    parser.add_argument("--foreground", type=int, default=20)
    parser.add_argument("--background", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")
    parser.add_argument("--floor", action="store_true", help="compare with the floor instead of the published way")
    parser.add_argument("--baseline", type=Path, help="source folder of another version, with --floor")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    name = options.shape.replace("/", "").lower()
    if options.floor:
        report = compare_with_floor(options)
        report["settings"] = {k: str(v) for k, v in vars(options).items() if k not in ("out", "memory_of", "floor")}
        path = write_report(f"clip_floor_{name}", report, options.out)
        print(json.dumps({k: v for k, v in report.items() if k not in ("seconds", "products")}, indent=1))
        for version, found in report["seconds"].items():
            print(f"{version:9} best {found['min']:.4f} s, median {found['median']:.4f} s")
        print(f"wrote {path}")
        return
    both = ways(options.shape, options.height, options.width, options.foreground, options.background)
    if options.memory_of:
        print(peak_growth(both[options.memory_of]))
        return
    results = {name: run() for name, run in both.items()}  # warms both up
    names = list(both)
    difference = float((results[PLAIN] - results[OURS]).abs().max())
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.repeats):
        for name, run in both.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    ratios = {n: [a / b for a, b in zip(seconds[n], seconds[OURS], strict=True)] for n in (PUBLISHED, PLAIN)}
    memory = {name: memory_of(name) for name in names}
    report = {
        "settings": {k: v for k, v in vars(options).items() if k not in ("out", "memory_of", "floor", "baseline")},
        "seconds": {name: {"median": statistics.median(s), "all": s} for name, s in seconds.items()},
        "ratio": {n: {"median": statistics.median(r), "min": min(r), "max": max(r)} for n, r in ratios.items()},
        "peak_bytes_above_start": memory,
        "memory_note": "peak resident memory of the first call above what the process held before it, models included",
        "largest_difference": difference,
    }
    path = write_report(f"clip_stage_{name}", report, options.out)
    for name in names:
        print(f"{name:42} {statistics.median(seconds[name]):7.3f} s   {memory[name] / 2**20:7.0f} MiB above the start")
    for name, r in ratios.items():
        print(f"{name} / cliper, pair by pair: median {statistics.median(r):.2f}, from {min(r):.2f} to {max(r):.2f}")
    print(f"largest difference of the class maps: {difference:.1e}\nwrote {path}")


def memory_of(name: str) -> int:
    """Peak memory of one way in a process of its own."""
    arguments = [a for a in sys.argv[1:] if a != "--memory-of"]
    done = subprocess.run(
        [sys.executable, __file__, *arguments, "--memory-of", name], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
