"""Fine-grained compensation in several implementations, on real shapes with random weights.

    python benchmarks/compensation.py [--quick] [--models sd2.1 sd1.5] [--repeats 3] [--baseline SRC]
        [--compile-limit 300] [--out FILE]
    pip install openvino    # for its rows, which are skipped where it is missing

Pipelines with Stable Diffusion's shapes and random weights are built in a temporary folder (about 5 GB each, and 4 GB
more for OpenVINO). Each implementation then runs in a process of its own, one after the other, so that peak memory is
its own:

- *published*: diffusers in float32; the whole UNet runs, the softmaxed map of every attention layer is kept, and the
  wanted ones are multiplied from left to right.
- *ours*: ``cliper.refiners``. Its stage "chain" makes the maps as well, which the published way does in its UNet;
  "chain from maps" begins where the published chain begins.
- *baseline*: the same from the source folder SRC of another revision.
- *bfloat16*: ours with the networks in that format (the chain stays float32), for processors that compute in it.
- *torch_compile*, *openvino*, *openvino_bfloat16*: diffusers' VAE encoder, and its UNet up to the last wanted queries
  and keys, compiled for one shape by these libraries; the chain is cliper's. Compiling is not part of the seconds.

The errors are absolute distances from the same computation in float64, for the attention maps (every seventh row of
each) and for the refined maps, and their ratio to those of the published way. The floor is the operations that are
needed whatever the program, over the rates of convolution and matrix product measured in the same run.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from compensation_ways import CONVERT, LAYERS, THRESHOLD, WAYS, convert, reason_to_skip
from machine import provenance
from random_pipeline import CLASSES, IMAGE, MODELS, SEED, build, inputs

RESULTS = Path(__file__).parent / "results" / "compensation.json"
GOALS = {"chain": 20.0, "total": 2.2, "memory": 2.0}
NEEDED = ("float64", "published", "ours")  # without these nothing can be compared


@torch.inference_mode()
def chain_from_maps(quick: bool, heads: int, width: int, repeats: int) -> float:
    """Seconds of ``cliper.ops.compensate`` on as many softmaxed maps as the pipeline has, the best of the repeats."""
    from cliper.ops import compensate

    _, maps, side = inputs(quick)
    query, key = torch.randn(2, heads, (side // 8) ** 2, width, generator=torch.Generator().manual_seed(SEED))
    attention = (query @ key.transpose(1, 2) * width**-0.5).softmax(-1)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        compensate(maps, attention, THRESHOLD)
        times.append(time.perf_counter() - start)
    return round(min(times), 4)


def measure(way: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run one way in this process: the best of the repeats for each stage, and peak memory."""
    start = time.perf_counter()
    details, run = WAYS[way](folder, args.quick, args.compile_limit)
    load = time.perf_counter() - start
    peak = _peak_gib()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    runs = []
    for _ in range(args.repeats):
        seconds, refined, rows = run()
        runs.append(seconds | {"total": sum(seconds.values())})
    running = _peak_gib()
    torch.save({"refined": refined, "rows": rows()}, folder / f"{way}.pt")
    best = {name: round(min(r[name] for r in runs), 4) for name in runs[0]}
    if way == "ours":  # after the peak was read: here the maps are all held
        unet = json.loads((folder / "unet" / "config.json").read_text())
        heads = unet["attention_head_dim"] if isinstance(unet["attention_head_dim"], int) else None
        heads = heads or unet["attention_head_dim"][0]
        width = unet["block_out_channels"][0] // heads
        best["chain from maps"] = chain_from_maps(args.quick, len(LAYERS) * heads, width, args.repeats)
    return {
        "seconds": best,
        "all_runs": runs,
        "load_seconds": round(load, 2),
        **details,
        "peak_gib": round(max(peak, running), 3),
        "running_peak_gib": round(running, 3),
    }


def _peak_gib() -> float:
    """Resident memory of this process at its peak (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def rates() -> dict[str, float]:
    """GFLOP/s of a large convolution and of a large matrix product, float32, the best this machine shows."""
    from cliper.kernels.linear import packed_linear

    def best(work, operations: float) -> float:
        work()
        times = []
        for _ in range(5):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return round(operations / min(times) / 1e9, 1)

    with torch.no_grad():
        x = torch.randn(1, 256, 128, 128).contiguous(memory_format=torch.channels_last)
        w = torch.randn(256, 256, 3, 3).contiguous(memory_format=torch.channels_last)
        a, product = torch.randn(4096, 1280), packed_linear(torch.randn(1280, 1280), 4096)
        return {
            "convolution": best(lambda: F.conv2d(x, w, padding=1), 2 * 128 * 128 * 256 * 256 * 9),
            "matmul": best(lambda: product(a), 2 * 4096 * 1280 * 1280),
        }


def operations(folder: Path, quick: bool) -> dict[str, dict[str, float]]:
    """Multiplications and additions, in 1e9, of what has to be computed, by stage and kind."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    side = inputs(quick)[2]
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae"))
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        image, latents = torch.empty(1, 3, side, side), torch.empty(1, 4, side // 8, side // 8)
        prompt = torch.empty(1, 77, unet.config.cross_attention_dim)

    class Stop(Exception):
        pass

    def leave(*_):
        raise Stop

    last = unet.get_submodule(LAYERS[0]).transformer_blocks[0].attn1
    last.to_v.register_forward_pre_hook(leave)  # queries and keys are there

    def step() -> None:
        with contextlib.suppress(Stop):
            unet(latents, torch.zeros((), device="meta"), prompt)

    found: dict[str, dict[str, float]] = {}
    for stage, work in (("vae", lambda: vae.encoder(image)), ("unet", step)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            work()
        by_kind = {"convolution": 0.0, "matmul": 0.0}
        for operator, count in counter.get_flop_counts()["Global"].items():
            by_kind["convolution" if "convolution" in str(operator) else "matmul"] += count / 1e9
        found[stage] = {kind: round(value, 3) for kind, value in by_kind.items()}
    tokens, attn = (side // 8) ** 2, last
    maps = 2 * attn.heads
    width = attn.to_q.out_features // attn.heads
    found["chain"] = {
        "convolution": 0.0,
        "matmul": round(maps * 2 * tokens * tokens * (width + CLASSES + 1) / 1e9, 3),
    }
    return found


def floor(counted: dict[str, dict[str, float]], rate: dict[str, float]) -> dict[str, float]:
    """Seconds by stage if nothing but those operations took time."""
    seconds = {
        stage: round(sum(count / rate[kind] for kind, count in kinds.items()), 3) for stage, kinds in counted.items()
    }
    return seconds | {"total": round(sum(seconds.values()), 3)}


def compare(model: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Build one pipeline and run each way on it in a process of its own."""
    build(folder, model, args.quick)
    result: dict[str, Any] = {}
    converted: dict[str, Any] | None = None
    for way in WAYS:
        if (way == "baseline" and args.baseline is None) or way in args.skip:
            continue
        print(f"{model}: {way}", file=sys.stderr, flush=True)
        reason = reason_to_skip(way)
        if reason is None and way.startswith("openvino"):
            converted = converted or _run_child(CONVERT, folder, args)
            reason = converted.get("reason")
        result[way] = {"reason": reason} if reason else _run_child(way, folder, args)
        if way.startswith("openvino") and "reason" not in result[way]:
            result[way] |= converted
        if way in NEEDED and "reason" in result[way]:
            raise SystemExit(f"{model}, {way}: {result[way]['reason']}")
    expected = torch.load(folder / "published.pt")["refined"]
    difference = {}
    measured = [way for way, row in result.items() if "reason" not in row]
    for way in measured:
        saved = torch.load(folder / f"{way}.pt")
        if way != "float64":
            result[way]["error"] = errors(saved, torch.load(folder / "float64.pt"))
        if way not in ("float64", "published"):
            difference[way] = float((saved["refined"] - expected).abs().max())
    del result["float64"]
    plain = result["published"]["error"]
    for way in measured[1:]:
        for name, error in result[way]["error"].items():
            error |= {f"{q}_ratio": round(error[q] / plain[name][q], 3) for q in ("median", "p90")}
    theirs, own = result["published"], result["ours"]
    ratio = {n: round(theirs["seconds"][n] / own["seconds"][n], 2) for n in ("vae", "unet", "chain", "total")}
    ratio["chain from maps"] = round(theirs["seconds"]["chain"] / own["seconds"]["chain from maps"], 2)
    ratio["memory"] = round(theirs["peak_gib"] / own["peak_gib"], 2)
    counted = operations(folder, args.quick)
    return result | {
        "ratio": ratio,
        "largest_value": float(expected.abs().max()),
        "largest_difference": difference,
        "operations_1e9": counted,
        "floor_seconds": floor(counted, args.rates),
    }


def errors(saved: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> dict[str, dict[str, float]]:
    """Median and 90th percentile of the absolute distance from float64."""
    found = {}
    for name, key in (("attention_maps", "rows"), ("refined_maps", "refined")):
        distance = (saved[key].double() - exact[key]).abs().numpy()
        median, high = np.quantile(distance, (0.5, 0.9), overwrite_input=True)
        found[name] = {"median": float(median), "p90": float(high)}
    return found


def _run_child(way: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """What a process of its own measured, or ``{"reason": ...}``."""
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder), "--repeats", str(args.repeats)]
    command += ["--threads", str(args.threads), "--compile-limit", str(args.compile_limit)]
    command += ["--quick"] if args.quick else []
    environment = os.environ | {
        "CLIPER_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
    }
    if way == "baseline":
        environment["PYTHONPATH"] = str(args.baseline.resolve())
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line] or done.stderr.splitlines()[-1:]
        return {"reason": lines[-1][:300] if lines else f"the process ended with {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(report: dict[str, Any]) -> str:
    """The report for a person."""
    lines = [f"rates, GFLOP/s: {report['rates_gflops']}"]
    for model, result in report["models"].items():
        stages = ("vae", "unet", "chain", "total")
        lines += [
            f"\n{model}: seconds, peak GiB, and errors against float64 (times the published way's): median, p90",
            f"{'':18}{''.join(f'{s:>8}' for s in stages)}{'peak':>8}{'attention maps':>20}{'refined maps':>20}",
        ]
        for way in WAYS:
            row = result.get(way)
            if row is None:
                continue
            if "reason" in row:
                lines.append(f"{way:18}  {row['reason']}")
                continue
            cells = "".join(f"{row['seconds'][stage]:8.2f}" for stage in stages) + f"{row['peak_gib']:8.2f}"
            for error in row["error"].values():
                cells += f"{error['median']:10.1e} ({error['median_ratio']:.1f}, {error['p90_ratio']:.1f})"
            lines.append(f"{way:18}{cells}")
        for name in ("ratio", "floor_seconds"):
            cells = ", ".join(f"{stage} {value:.2f}" for stage, value in result[name].items())
            lines.append(f"{'published / ours' if name == 'ratio' else 'floor'}: {cells}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few channels and a small image: seconds, no meaning")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--baseline", type=Path, metavar="SRC", help="source folder of another revision, for a row")
    parser.add_argument(
        "--skip", nargs="+", default=[], choices=[way for way in WAYS if way not in NEEDED], help="rows to leave out"
    )
    parser.add_argument("--compile-limit", type=int, default=300, help="seconds that torch.compile may take")
    parser.add_argument("--out", type=Path, default=RESULTS)
    for hidden in ("--way", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.way == CONVERT:
        print(json.dumps(convert(Path(args.folder), args.quick)))
        return
    if args.way:
        print(json.dumps(measure(args.way, Path(args.folder), args)))
        return
    if args.baseline is not None and not (args.baseline / "cliper").is_dir():
        parser.error(f"--baseline: expected a folder that holds the package cliper, got {args.baseline}")
    args.rates = rates()
    report = {
        "settings": {
            "image": IMAGE,
            "classes": CLASSES,
            "threshold": THRESHOLD,
            "layers": LAYERS,
            "side": inputs(args.quick)[2],
            "dtype": "float32",
            "quick": args.quick,
            "repeats": args.repeats,
            "compile_limit_seconds": args.compile_limit,
        },
        "provenance": provenance(),
        "torch_config": torch.__config__.show().splitlines(),
        "goals": GOALS,
        "rates_gflops": args.rates,
        "models": {},
    }
    for model in args.models:
        # The machine may have been slower before: a floor needs the best rates that it shows.
        args.rates.update({kind: max(rate, args.rates[kind]) for kind, rate in rates().items()})
        with tempfile.TemporaryDirectory() as folder:
            report["models"][model] = compare(model, Path(folder), args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n")
    print(table(report))


if __name__ == "__main__":
    main()
