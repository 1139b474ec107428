"""Seconds and memory of the CLIP stage (pixels and texts to class maps), compared with the published way.

The published code is not part of this project. ``tests/oracle/reference.py``, plain code for the method that agrees
with it, represents it in two forms: unchanged, and with query and key projections of the last layer for every level,
which the published code computes without using them.

    python benchmarks/clip_stage.py            # ViT-B/16, 336 px, 20 + 25 texts, two threads

All run alternating in one process, A B C A B C; memory is measured in a separate process each, above the model's.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from machine import RESULTS, peak_growth, write_report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SHAPES = {  # hidden, intermediate, layers, heads, patch, joint width
    "tiny": (64, 128, 3, 2, 16, 32),
    "ViT-B/16": (768, 3072, 12, 12, 16, 512),
    "ViT-L/14": (1024, 4096, 24, 16, 14, 768),
}
SCALE, THRESHOLD = 100.0, 0.1
PUBLISHED, PLAIN, OURS = "published way (oracle, last q and k too)", "oracle", "cliper"


def ways(
    shape: str, height: int, width: int, foreground: int, background: int
) -> dict[str, Callable[[], torch.Tensor]]:
    """The ways, on equal random weights and inputs."""
    from transformers import CLIPConfig, CLIPModel

    from cliper.encoders.clip import ClipEncoder
    from cliper.ops import RECIPES, build_text_classifier, class_maps
    from oracle import reference

    hidden, intermediate, layers, heads, patch, joint = SHAPES[shape]
    config = CLIPConfig(
        vision_config={
            "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers,
            "num_attention_heads": heads, "image_size": 14 * patch, "patch_size": patch,
        },
        text_config={"num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 64},
        projection_dim=joint,
    )  # fmt: skip
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
    encoder = ClipEncoder(copied, Path())

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
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
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
        "settings": {k: v for k, v in vars(options).items() if k not in ("out", "memory_of")},
        "seconds": {name: {"median": statistics.median(s), "all": s} for name, s in seconds.items()},
        "ratio": {n: {"median": statistics.median(r), "min": min(r), "max": max(r)} for n, r in ratios.items()},
        "peak_bytes_above_start": memory,
        "memory_note": "peak resident memory of the first call above what the process held before it, models included",
        "largest_difference": difference,
    }
    path = write_report(f"clip_stage_{options.shape.replace('/', '').lower()}", report, options.out)
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
