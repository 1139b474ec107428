"""Segment an image by words: python onnx_segment.py EXPORT photo.jpg "dog; cat" labels.png (docs/export.md)."""

import itertools, json, re, sys, unicodedata  # noqa: E401, I001
from pathlib import Path
import numpy as np, onnxruntime  # noqa: E401
from PIL import Image, ImageOps

if len(sys.argv) != 5 or not all(map(Path.is_file, (Path(sys.argv[1], "image.onnx"), Path(sys.argv[2])))):
    sys.exit(f"expected the folder of an export, an image, words and a file for labels, got {sys.argv[1:]}\n{__doc__}")
folder, classes = Path(sys.argv[1]), [name.strip() for name in sys.argv[3].split(";") if name.strip()]
config, tokenizer = (json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("config", "tokenizer"))
text_graph, image_graph = (onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("text", "image"))
text, pixels, labels, others = (config[name] for name in ("text", "pixels", "labels", "background"))
RANKS = {tuple(pair): rank for rank, pair in enumerate(tokenizer["model"]["merges"])}
PLAIN = {*range(33, 127), *range(161, 173), *range(174, 256)}
CHARS = {b: chr(b) for b in PLAIN} | {b: chr(256 + i) for i, b in enumerate(sorted(set(range(256)) - PLAIN))}


def tokenize(sentence):  # CLIP's byte-level BPE
    chars, ids = unicodedata.normalize("NFC", sentence), [text["start"]]
    apart = "".join(f" {char} ".lower() if unicodedata.category(char)[0] == "N" else char.lower() for char in chars)
    for word in re.findall(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", apart):
        parts = [CHARS[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while pairs := [(RANKS[pair], i) for i, pair in enumerate(itertools.pairwise(parts)) if pair in RANKS]:
            i = min(pairs)[1]
            parts[i : i + 2] = ["".join(parts[i : i + 2])]
        ids += [tokenizer["model"]["vocab"][part] for part in parts]
    return [*ids, text["end"]]


def embed(names):  # the mean over the templates, of length 1
    ids = [tokenize(form.format(name)) for name in names for form in text["templates"]]
    padded = np.array([row + [0] * (max(map(len, ids)) - len(row)) for row in ids])
    means = text_graph.run(None, {"tokens": padded})[0].reshape(len(names), len(text["templates"]), -1).mean(1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


photo = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGBA")
photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB")
inputs = {name: np.array(value, np.float32) for name, value in config["inputs"].items()}
for name, view in config["sizes"].items():
    counts = np.array(photo.size) * (view["short_side"] / min(photo.size)) / view["patch_size"]
    counts = np.maximum(1, (counts * min(1, (view["max_patches"] / counts.prod()) ** 0.5) + 0.5).astype(int))
    size = view["shape"][::-1] if view["shape"] else counts * view["patch_size"]
    values = np.float32(photo.resize(tuple(size), Image.Resampling.BICUBIC)) / 255
    inputs[name] = ((values - np.float32(pixels["mean"])) / np.float32(pixels["std"])).transpose(2, 0, 1)[None]
taken = {word.removesuffix(end) for word in re.findall(r"\w+", sys.argv[3].casefold()) for end in ("", "s", "es")}
names = [name for name, forms in others["names"].items() if taken.isdisjoint(forms)]
foreground, background = embed(classes), embed(names)
background = background[(background @ foreground.T).max(1) < others["similarity"]]
maps, refined = (image_graph.run(None, inputs | {"foreground": foreground, "background": background}) * 2)[:2]
confidence = (maps.max((1, 2)) + refined.max((1, 2))) / 2
scores = np.stack([Image.fromarray(one).resize(photo.size, Image.Resampling.BILINEAR) for one in refined])
scores *= (confidence * (confidence > labels["score_threshold"]) / (scores.max((1, 2)) + 1e-5))[:, None, None]
if labels["normalize"]:
    scores = (scores - scores.min((1, 2), keepdims=True)) / (np.ptp(scores, (1, 2), keepdims=True) + 1e-6)
best, limit = scores.max(0), labels["background_threshold"]
found = np.where(best < limit if limit else (1 - best) ** 2 >= best, 0, scores.argmax(0) + 1)
Image.fromarray(found.astype(np.uint8 if len(classes) < 256 else np.uint16)).save(sys.argv[4])
