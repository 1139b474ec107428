"""Operations of TAESD's encoder beside those of Stable Diffusion's VAE, and what its error does to attention maps.

    python benchmarks/tiny_vae.py --taesd FOLDER --images FOLDER

TAESD's weights are real, the UNet has Stable Diffusion 2.1's structure, few channels and random weights, whose queries
and keys are multiplied by ``--sharpness``: the attention maps of real weights are not known here. An image is encoded
by TAESD, decoded, and encoded again; the change of the maps by this round trip is compared with that by another seed
of the noise, and by leaving the noise out. A change is half the sum of the absolute differences of a row, in the mean.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cliper.images import load_image, to_tensor
from cliper.refiners import load_refiner
from cliper.refiners.diffusion.unet_attention import capture_query_key
from machine import write_report
from random_pipeline import build

SIZE, STEP = (512, 512), 45


def operations(model: torch.nn.Module) -> float:
    """Floating-point operations of an encoder at 512x512, in 10^9; the model has no weights."""
    with FlopCounterMode(display=False) as counter:
        model.encoder(torch.empty(1, 3, *SIZE, device="meta"))
    return counter.get_total_flops() / 1e9


def change(first: Tensor, second: Tensor) -> float:
    """Mean total variation of two stacks of attention maps."""
    return float((first - second).abs().sum(-1).mean() / 2)


def main() -> None:
    """Measure and write ``results/tiny_vae.json``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--taesd", type=Path, required=True, help="folder of TAESD in diffusers' format")
    parser.add_argument("--images", type=Path, required=True, help="folder of JPEG files")
    parser.add_argument("--limit", type=int, default=3)
    parser.add_argument("--sharpness", type=float, default=3.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    with torch.device("meta"):
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
        full = AutoencoderKL(**blocks, block_out_channels=(128, 256, 512, 512), layers_per_block=2)
        tiny = AutoencoderTiny.from_config(AutoencoderTiny.load_config(args.taesd))
    counts = {"full": operations(full), "taesd": operations(tiny)}
    report: dict = {"gflop": {name: round(count, 1) for name, count in counts.items()}, "images": []}
    report |= {"ratio": round(counts["full"] / counts["taesd"], 2), "size": SIZE, "sharpness": args.sharpness}
    decoder = AutoencoderTiny.from_pretrained(args.taesd).float().eval()
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), "sd2.1", quick=True)
        refiner = load_refiner(folder, device="cpu")
        for name, parameter in refiner.unet.named_parameters():
            if "attn1.to_q" in name or "attn1.to_k" in name:
                parameter.mul_(args.sharpness)

        def maps(latents: Tensor, seed: int | None) -> Tensor:
            noisy, time = refiner.add_noise(latents, STEP, seed)
            [layers] = capture_query_key(refiner.unet, noisy, time, refiner.prompt, None)
            return torch.cat([(layer.query @ layer.key.mT * layer.scale).softmax(-1) for layer in layers])

        for path in sorted(args.images.glob("*.jpg"))[: args.limit]:
            latents = refiner.encode_latents(to_tensor(load_image(path)), SIZE, "bilinear", str(args.taesd))
            decoded = decoder.decode(latents).sample.clamp(-1, 1) / 2 + 0.5
            again = refiner.encode_latents(decoded[0], SIZE, "bilinear", str(args.taesd))
            base = maps(latents, 0)
            row = {
                "latents, relative": float((again - latents).norm() / latents.norm()),
                "round trip": change(base, maps(again, 0)),
                "another seed": change(base, maps(latents, 1)),
                "no noise": change(base, maps(latents, None)),
            }
            report["images"].append({key: round(value, 4) for key, value in row.items()})
            print(path.name, json.dumps(report["images"][-1]), flush=True)
    report["median"] = {
        key: round(statistics.median(row[key] for row in report["images"]), 4) for key in report["images"][0]
    }
    print(json.dumps(report["gflop"]), report["ratio"], json.dumps(report["median"]))
    print(f"wrote {write_report('tiny_vae', report, args.out)}")


if __name__ == "__main__":
    main()
