"""Fine-grained compensation: this package beside the published way, on real shapes with random weights.

    python benchmarks/compensation.py [--quick] [--models sd2.1 sd1.5] [--repeats 3] [--out FILE]

Pipelines with Stable Diffusion's shapes and random weights are built in a temporary folder (about 5 GB each). Each
way then runs in a process of its own, so that peak memory is its own: the *published* way loads the whole
pipeline, runs the whole UNet, keeps the softmaxed map of every attention layer, and multiplies the wanted ones
left to right; *ours* is ``cliper.refiners``. Its stage "chain" makes the maps as well, which the published way does in
its UNet; "chain from maps" begins where the published chain begins. *bfloat16* is ours with the networks in that
format (the chain stays float32), for processors that compute in it. The floor is the operations that are needed
whatever the program, over the rates of convolution and matrix product measured in the same run.
"""

import argparse
import contextlib
import json
import os
import resource
import string
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from machine import provenance

MODELS = {
    "sd2.1": {"heads": [5, 10, 20, 20], "text": 1024, "linear": True, "layers": 23, "text_heads": 16},
    "sd1.5": {"heads": 8, "text": 768, "linear": False, "layers": 12, "text_heads": 12},
}
LAYERS = ("up_blocks.3.attentions.1", "up_blocks.3.attentions.0")
THRESHOLD = 0.1
CLASSES = 20
PICTURE = (426, 640)
SEED = 0
RESULTS = Path(__file__).parent / "results" / "compensation.json"
WAYS = ("published", "ours", "bfloat16")
GOALS = {"chain": 20.0, "total": 2.2, "memory": 2.0}


def build(folder: Path, model: str, quick: bool) -> None:
    """A pipeline with the model's shapes (or with few channels) and random weights."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    shape = MODELS[model]
    torch.manual_seed(SEED)
    small = {"block_out_channels": (32, 32, 32, 32), "norm_num_groups": 8} if quick else {}
    heads = ([2, 4, 4, 4] if isinstance(shape["heads"], list) else 4) if quick else shape["heads"]
    width = 32 if quick else shape["text"]
    unet = UNet2DConditionModel(
        sample_size=64,
        attention_head_dim=heads,
        cross_attention_dim=width,
        use_linear_projection=shape["linear"],
        **small,
    )
    unet.save_pretrained(folder / "unet")
    del unet
    AutoencoderKL(
        block_out_channels=(16, 16, 16, 16) if quick else (128, 256, 512, 512),
        norm_num_groups=8 if quick else 32,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    ).save_pretrained(folder / "vae")
    CLIPTextModel(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=2 if quick else shape["layers"],
            num_attention_heads=2 if quick else shape["text_heads"],
            vocab_size=64 if quick else 49408,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).save_pretrained(folder / "text_encoder")
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    letters = [*string.ascii_lowercase, *(f"{c}</w>" for c in string.ascii_lowercase)]
    tokens = [*letters, "<|startoftext|>", "<|endoftext|>"]
    (tokenizer / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": tokens[-2], "eos_token": tokens[-1], "unk_token": tokens[-1], "pad_token": tokens[-1]}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(config))
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


def inputs(quick: bool) -> tuple[torch.Tensor, torch.Tensor, int]:
    """The picture, its class maps, and the side to which the picture is resized."""
    generator = torch.Generator().manual_seed(SEED)
    coarse = torch.rand(1, 3, 14, 20, generator=generator)
    picture = F.interpolate(coarse, size=PICTURE, mode="bicubic")[0].clamp(0, 1)
    return picture, torch.rand(CLASSES, 21, 32, generator=generator), 128 if quick else 512


class Stages:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now


class Collect:
    """Textbook attention that keeps its softmaxed map."""

    def __init__(self, maps: list[torch.Tensor]) -> None:
        self.maps = maps

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q = attn.head_to_batch_dim(attn.to_q(hidden_states))
        k, v = (attn.head_to_batch_dim(layer(context)) for layer in (attn.to_k, attn.to_v))
        probabilities = attn.get_attention_scores(q, k)
        self.maps.append(probabilities)
        return attn.to_out[0](attn.batch_to_head_dim(torch.bmm(probabilities, v)))


def published(folder: Path, quick: bool):
    """-> a function that runs the published way once: seconds by stage, and the refined maps."""
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    picture, maps, side = inputs(quick)

    @torch.no_grad()
    def run() -> tuple[dict[str, float], torch.Tensor]:
        stages = Stages()
        tokens = pipe.tokenizer("", padding="max_length", max_length=77, return_tensors="pt")
        prompt = pipe.text_encoder(tokens.input_ids)[0]
        stages("prompt")
        pixels = F.interpolate(picture[None], size=(side, side)) * 2 - 1
        latents = pipe.vae.encode(pixels).latent_dist.mean * pipe.vae.config.scaling_factor
        stages("vae")
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(SEED))
        pipe.scheduler.set_timesteps(50)
        timestep = pipe.scheduler.timesteps[45]
        noisy = pipe.scheduler.add_noise(latents, noise, timestep[None])
        collected: list[torch.Tensor] = []
        pipe.unet.set_attn_processor(Collect(collected))
        pipe.unet(noisy, timestep, encoder_hidden_states=prompt)
        stages("unet")
        attention = torch.cat([collected[-4], collected[-6]])
        attention = attention / (attention.amax(-2, keepdim=True) + 1e-5)
        attention = torch.where(attention < THRESHOLD, 0, attention)
        attention = attention / (attention.sum(-1, keepdim=True) + 1e-5)
        chain = attention[0]
        for step in attention[1:]:
            chain = chain @ step
        grid = side // 8
        x = F.interpolate(maps[None], size=(grid, grid), mode="bilinear", align_corners=False)[0]
        refined = (chain @ x.flatten(1).T).T.reshape(-1, grid, grid)
        stages("chain")
        return stages.seconds, refined

    return run


def ours(folder: Path, quick: bool, dtype: torch.dtype = torch.float32):
    """-> a function that runs this package once: seconds by stage, and the refined maps."""
    from cliper.refiners import load_refiner
    from cliper.refiners.capture import capture_heads
    from cliper.settings import Settings

    refiner: Any = load_refiner(folder, device="cpu", dtype=dtype)
    picture, maps, side = inputs(quick)
    settings = Settings(map_threshold=THRESHOLD)

    @torch.inference_mode()
    def run() -> tuple[dict[str, float], torch.Tensor]:
        stages = Stages()
        latents = refiner.encode(picture, (side, side))
        stages("vae")
        noisy, timestep = refiner.add_noise(latents, 45, SEED)
        heads = capture_heads(refiner.unet, noisy, timestep, refiner.prompt, LAYERS)[0]
        stages("unet")
        refined = refiner.compensate(maps, heads, latents.shape[-2:], settings)
        stages("chain")
        return stages.seconds, refined

    return run


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


def measure(way: str, folder: Path, quick: bool, repeats: int, save: Path) -> dict[str, Any]:
    """Run one way in this process: the best of the repeats for each stage, and peak memory."""
    start = time.perf_counter()
    if way == "published":
        run = published(folder, quick)
    else:
        run = ours(folder, quick, torch.bfloat16 if way == "bfloat16" else torch.float32)
    load = time.perf_counter() - start
    runs = []
    for _ in range(repeats):
        seconds, refined = run()
        runs.append(seconds | {"total": sum(seconds.values())})
    torch.save(refined, save)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # kilobytes on Linux
    best = {name: round(min(r[name] for r in runs), 4) for name in runs[0]}
    if way == "ours":  # after the peak was read: here the maps are all held
        unet = json.loads((folder / "unet" / "config.json").read_text())
        heads = unet["attention_head_dim"] if isinstance(unet["attention_head_dim"], int) else None
        heads = heads or unet["attention_head_dim"][0]
        width = unet["block_out_channels"][0] // heads
        best["chain from maps"] = chain_from_maps(quick, len(LAYERS) * heads, width, repeats)
    return {"seconds": best, "all_runs": runs, "load_seconds": round(load, 2), "peak_gib": round(peak, 3)}


def rates() -> dict[str, float]:
    """GFLOP/s of a large convolution and of a large matrix product, float32, the best this machine shows."""
    from cliper.ops.linear import linear

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
        a, b = torch.randn(4096, 1280), torch.randn(1280, 1280)
        return {
            "convolution": best(lambda: F.conv2d(x, w, padding=1), 2 * 128 * 128 * 256 * 256 * 9),
            "matmul": best(lambda: linear(a, b), 2 * 4096 * 1280 * 1280),
        }


def operations(folder: Path, quick: bool) -> dict[str, dict[str, float]]:
    """Multiplications and additions, in 1e9, of what has to be computed, by stage and kind."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    side = inputs(quick)[2]
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae"))
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        picture, latents = torch.empty(1, 3, side, side), torch.empty(1, 4, side // 8, side // 8)
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
    for stage, work in (("vae", lambda: vae.encoder(picture)), ("unet", step)):
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
    outputs = {}
    for way in WAYS if _computes_bfloat16() else WAYS[:2]:
        outputs[way] = folder / f"{way}.pt"
        command = [sys.executable, __file__, "--way", way, "--folder", str(folder), "--save", str(outputs[way])]
        command += ["--repeats", str(args.repeats), "--threads", str(args.threads)]
        command += ["--quick"] if args.quick else []
        environment = os.environ | {"CLIPER_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise SystemExit(f"{model}, {way}: {done.stderr[-2000:]}")
        result[way] = json.loads(done.stdout.splitlines()[-1])
    counted = operations(folder, args.quick)
    theirs, own = result["published"], result["ours"]
    ratio = {n: round(theirs["seconds"][n] / own["seconds"][n], 2) for n in ("vae", "unet", "chain", "total")}
    ratio["chain from maps"] = round(theirs["seconds"]["chain"] / own["seconds"]["chain from maps"], 2)
    ratio["memory"] = round(theirs["peak_gib"] / own["peak_gib"], 2)
    expected = torch.load(outputs["published"])
    difference = {
        way: float((torch.load(file) - expected).abs().max()) for way, file in outputs.items() if way != "published"
    }
    return result | {
        "ratio": ratio,
        "largest_value": float(expected.abs().max()),
        "largest_difference": difference,
        "operations_1e9": counted,
        "floor_seconds": floor(counted, args.rates),
    }


def _computes_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16, so that it is worth measuring."""
    return any(flag in Path("/proc/cpuinfo").read_text() for flag in ("amx_bf16", "avx512_bf16"))


def table(report: dict[str, Any]) -> str:
    """The report for a person."""
    lines = [f"rates, GFLOP/s: {report['rates_gflops']}"]
    for model, result in report["models"].items():
        lines.append(f"\n{model:16}{'published':>12}{'ours':>10}{'ratio':>8}{'floor':>9}{'bfloat16':>10}   seconds")
        ways = [result.get(way, {"seconds": {}}) for way in WAYS]
        for stage in ("prompt", "vae", "unet", "chain", "chain from maps", "total"):
            old, new, half = (way["seconds"].get(stage) for way in ways)
            if stage == "chain from maps":
                old = ways[0]["seconds"]["chain"]
            ratio, least = result["ratio"].get(stage), result["floor_seconds"].get(stage)
            cells = [f"{v:.2f}" if v is not None else "-" for v in (old, new, ratio, least, half)]
            lines.append(f"{stage:16}{cells[0]:>12}{cells[1]:>10}{cells[2]:>8}{cells[3]:>9}{cells[4]:>10}")
        peaks = [f"{way['peak_gib']:.2f}" if "peak_gib" in way else "-" for way in ways]
        lines.append(
            f"{'peak GiB':16}{peaks[0]:>12}{peaks[1]:>10}{result['ratio']['memory']:>8.2f}{'':9}{peaks[2]:>10}"
        )
        lines += [
            f"largest difference of the refined maps, {way}: {value:.1e} (largest value {result['largest_value']:.2f})"
            for way, value in result["largest_difference"].items()
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few channels and a small picture: seconds, no meaning")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    for hidden in ("--way", "--folder", "--save"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.way:
        print(json.dumps(measure(args.way, Path(args.folder), args.quick, args.repeats, Path(args.save))))
        return
    args.rates = rates()
    report = {
        "settings": {
            "picture": PICTURE,
            "classes": CLASSES,
            "threshold": THRESHOLD,
            "layers": LAYERS,
            "side": inputs(args.quick)[2],
            "dtype": "float32",
            "quick": args.quick,
            "repeats": args.repeats,
        },
        "provenance": provenance(),
        "torch_config": torch.__config__.show().splitlines(),
        "goals": GOALS,
        "rates_gflops": args.rates,
        "models": {},
    }
    for model in args.models:
        with tempfile.TemporaryDirectory() as folder:
            report["models"][model] = compare(model, Path(folder), args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n")
    print(table(report))


if __name__ == "__main__":
    main()
