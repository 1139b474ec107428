"""Labels that flicker in a video, with and without ``cliper batch --smooth``, on a clip with ground truth.

    python benchmarks/video_smoothing.py

The clip is made of the photo that comes with the package: its meadow and sky, mirrored to a wide background; a horse
cut out of it that stands, and one that walks by. The ground truth is where they were pasted. Each frame has its own
noise and brightness, as from a camera. The bundled checkpoint segments it: its errors are real ones. Reported:

- ``changed``: share of pixels that change label from one frame to the next, of those farther than a cell of the class
  maps from all that moved (a cell that an object enters or leaves must change);
- ``changed_near``: the same of all pixels in which nothing moved;
- ``miou``: mean IoU of the horses, the standing one and the walking one, over all frames.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

import cliper
from cliper.batch.smooth_video import smooth_frame
from machine import write_report

CLASSES = ["horse", "grass", "sky"]
SIZE = (720, 498)


class Frame(NamedTuple):
    """A frame with its noise, the same without, and [H, W] ground truth: 1 the standing horse, 2 the walking one."""

    image: Image.Image
    clean: np.ndarray
    truth: np.ndarray


def make_clip(frames: int, *, noise: float = 6.0, gain: float = 0.02, seed: int = 0) -> Iterator[Frame]:
    """Frames of 720x498 pixels; the horse walks 14 pixels a frame.

    Args:
        frames: their number.
        noise: standard deviation in each channel, of 255.
        gain: relative standard deviation of the frames' brightness.
        seed: of both.
    """
    photo = np.asarray(Image.open(cliper.example_photo()).convert("RGB").resize((768, 498)))
    meadow = photo[:, 690:766]
    background = np.concatenate([meadow, meadow[:, ::-1]] * 5, axis=1)[:, : SIZE[0]]
    horse = photo[170:425, 440:690]
    dark = ndimage.binary_opening(horse.mean(2) < 80)
    regions, _ = ndimage.label(dark)
    mask = ndimage.binary_fill_holes(regions == np.bincount(regions[dark]).argmax())
    small = np.asarray(Image.fromarray(horse).resize((150, 153)))[:, ::-1]
    small_mask = np.asarray(Image.fromarray(mask).resize((150, 153), Image.Resampling.NEAREST))[:, ::-1]
    rng = np.random.default_rng(seed)
    for number in range(frames):
        clean, truth = background.copy(), np.zeros(background.shape[:2], np.uint8)
        for label, crop, shape, x, y in ((1, small, small_mask, 520, 220), (2, horse, mask, 14 * number - 100, 190)):
            left, right = max(0, x), min(SIZE[0], x + shape.shape[1])
            rows, columns, part = slice(y, y + len(shape)), slice(left, right), slice(left - x, right - x)
            clean[rows, columns][shape[:, part]] = crop[:, part][shape[:, part]]
            truth[rows, columns][shape[:, part]] = label
        noisy = clean * (1 + gain * rng.standard_normal()) + rng.normal(0, noise, clean.shape)
        yield Frame(Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8)), clean, truth)


def score(clip: list[Frame], labels: list[np.ndarray], cell: float) -> dict[str, float]:
    """The three numbers of a clip's label maps; ``cell`` is the side of a cell of the class maps in pixels."""
    near, far, still, still_far, ious = 0, 0, 0, 0, []
    for before, after in zip(range(len(clip) - 1), range(1, len(clip)), strict=True):
        moved = (clip[before].clean != clip[after].clean).any(2)
        changed = labels[before] != labels[after]
        distant = ndimage.distance_transform_edt(~moved) > cell if moved.any() else ~moved
        near, still = near + (changed & ~moved).sum(), still + (~moved).sum()
        far, still_far = far + (changed & distant).sum(), still_far + distant.sum()
    # Other classes have one label; the half of the image in which a horse is decides whose the pixels are.
    owner = [
        ndimage.distance_transform_edt(frame.truth != 1) < ndimage.distance_transform_edt(frame.truth != 2)
        for frame in clip
    ]
    for number in (1, 2):
        mine = [o if number == 1 else ~o for o in owner]
        found = [(found == 1) & m for found, m in zip(labels, mine, strict=True)]
        overlap = sum(((frame.truth == number) & f).sum() for frame, f in zip(clip, found, strict=True))
        union = sum(((frame.truth == number) | f).sum() for frame, f in zip(clip, found, strict=True))
        ious.append(overlap / union)
    return {"changed": far / still_far, "changed_near": near / still, "miou": float(np.mean(ious))}


def measure(clip: list[Frame], segmenter: cliper.Segmenter, lengths: list[int]) -> dict[str, Any]:
    """The scores without smoothing, and with averages of each length."""
    maps = [segmenter.predict_maps(segmenter.encode_image(frame.image), CLASSES, "none") for frame in clip]
    cell = SIZE[1] / maps[0][0].shape[1]
    assign: Callable[..., cliper.Segmentation] = segmenter.assign_labels
    plain = [assign(frame.image, CLASSES, *one).labels for frame, one in zip(clip, maps, strict=True)]
    scores: dict[str, Any] = {"off": score(clip, plain, cell)}
    for length in lengths:
        state, labels, started, seconds = None, [], 0.0, 0.0
        for frame, one in zip(clip, maps, strict=True):
            started = time.perf_counter()
            state, smooth = smooth_frame(state, frame.image, one, length)
            seconds += time.perf_counter() - started
            labels.append(assign(frame.image, CLASSES, *smooth).labels)
        scores[str(length)] = {**score(clip, labels, cell), "seconds_per_frame": round(seconds / len(clip), 4)}
    return scores


def main() -> None:
    """Measure and write ``results/video_smoothing.json``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--noise", type=float, nargs="+", default=[6.0, 12.0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--refiner", choices=["none", "self"], default="none")
    parser.add_argument("--out", type=Path, help="folder of the report")
    args = parser.parse_args()
    refiner = None if args.refiner == "none" else args.refiner
    segmenter = cliper.Segmenter.from_pretrained("mini", refiner=refiner, device="cpu")
    report: dict[str, Any] = {"model": "mini", "refiner": args.refiner, "frames": args.frames, "noise": {}}
    with torch.no_grad():
        for noise in args.noise:
            clip = list(make_clip(args.frames, noise=noise))
            report["noise"][f"{noise:g}"] = found = measure(clip, segmenter, args.lengths)
            for name, row in found.items():
                print(
                    f"noise {noise:g}, average {name}: " + ", ".join(f"{key} {value:.5f}" for key, value in row.items())
                )
    print(f"wrote {write_report('video_smoothing', report, args.out)}")


if __name__ == "__main__":
    main()
