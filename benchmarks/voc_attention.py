"""mIoU of last-layer attentions on PASCAL VOC with the bundled checkpoint, before any refinement.

    python benchmarks/voc_attention.py --data VOCdevkit

The bundled checkpoint was trained with masks of VOC, so these numbers do not compare with the published, training-free
ones. Its patches were trained directly, so early-layer fusion improves them less than CLIP's. The numbers show that the
whole path works on real images, and the effect of each attention on this checkpoint.

voc21 counts the background as a class. The numbers depend most on its threshold, so eight are tried for every
attention (``score_threshold`` and ``background_threshold`` alike); the best is chosen on the same images and is
therefore optimistic. voc20 has no background: every pixel gets a class.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from cliper import Segmenter
from cliper.evaluation import ConfusionMatrix, benchmark_texts
from cliper.ops import assign_labels
from machine import RESULTS, write_report
from voc import voc_images, voc_names

ATTENTIONS = {  # name -> settings
    "vanilla (q-k)": {"attention": "vanilla", "fuse_features": False},
    "k-k": {"attention": "k-k", "fuse_features": False},
    "identity": {"attention": "identity", "fuse_features": False},
    "fused, feature fusion off": {"attention": "fused", "fuse_features": False},
    "vanilla (q-k), feature fusion on": {"attention": "vanilla", "fuse_features": True},
    "k-k, feature fusion on": {"attention": "k-k", "fuse_features": True},
    "identity, feature fusion on": {"attention": "identity", "fuse_features": True},
    "fused, feature fusion on": {"attention": "fused", "fuse_features": True},
}
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder VOCdevkit")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--limit", type=int, default=None, help="only the first images")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")
    options = parser.parse_args()
    names = voc_names(options.data)[: options.limit]
    segmenter = Segmenter.from_pretrained(options.model)
    texts = benchmark_texts("voc")
    foreground, background = segmenter.encode_text(texts.classes), segmenter.encode_text(texts.background)
    variants = {name: segmenter.with_settings(segmenter.settings.replace(**s)) for name, s in ATTENTIONS.items()}
    keys = [*THRESHOLDS, "voc20"]
    matrices = {
        name: {key: ConfusionMatrix(21, ignore=(0, 255) if key == "voc20" else (255,)) for key in keys}
        for name in variants
    }
    started = time.perf_counter()
    for image, target in voc_images(options.data, names):
        pixels = segmenter.preprocess(image)
        for variant, one in variants.items():
            maps = one.class_maps(pixels, foreground, background)
            for key in keys:
                background_value, score = (1e-4, 0.0) if key == "voc20" else (key, key)
                labels = assign_labels(
                    maps,
                    maps,
                    target.shape,
                    background_threshold=background_value,
                    score_threshold=score,
                    normalize=one.settings.normalize,
                )
                matrices[variant][key].update(target, labels)
    rows = {}
    for variant, by_key in matrices.items():
        swept = {str(key): round(by_key[key].miou, 4) for key in THRESHOLDS}
        rows[variant] = {
            "settings": variants[variant].settings.to_dict(),
            "voc20": round(by_key["voc20"].miou, 4),
            "voc21_by_threshold": swept,
            "voc21_at_recommended": swept[str(segmenter.settings.background_threshold)],
            "voc21_best": max(swept.values()),
        }
    report = {
        "what": __doc__,
        "model": segmenter.checkpoint.name,
        "images": len(names),
        "dataset": "PASCAL VOC 2012 val, the images named in its val.txt",
        "voc20_labels": {"background": 1e-4, "score": 0.0},
        "seconds": round(time.perf_counter() - started, 1),
        "miou": rows,
    }
    path = write_report("voc_attention", report, options.out)
    print(f"{options.model}, {len(names)} images of VOC 2012 val, no refiner; mIoU")
    print(f"{'attention':36} voc21 (best of 8)  voc21 at {segmenter.settings.background_threshold:g}  voc20")
    for variant, row in rows.items():
        print(f"{variant:36} {row['voc21_best']:17.3f}  {row['voc21_at_recommended']:12.3f}  {row['voc20']:5.3f}")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
