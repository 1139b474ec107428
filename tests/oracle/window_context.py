"""A plain, slow statement of windows that attend to all windows of their image (``docs/method.md``, "Window context").

One image at a time, a loop over the windows and over their patches; nothing is shared with the package.
"""

import torch
import torch.nn.functional as F

from oracle.reference import CONFERENCE, position_embedding, split


def hidden(model, pixels):
    """pixels [3, H, W] -> what is embedded of each layer [1 + hw, width], and the sum of the attention maps."""
    vision = model.vision_model
    patch, heads = vision.config.patch_size, vision.config.num_attention_heads
    x = vision.embeddings.patch_embedding(pixels[None]).flatten(2)[0].T
    grid = (pixels.shape[1] // patch, pixels.shape[2] // patch)
    x = torch.cat([vision.embeddings.class_embedding[None], x]) + position_embedding(vision, grid)
    x = vision.pre_layrnorm(x)
    features, maps = [], 0
    for layer in vision.encoder.layers[:-1]:
        h = layer.layer_norm1(x)
        features.append(h)
        q, k, v = (split(getattr(layer.self_attn, f"{n}_proj")(h), heads) for n in "qkv")
        a = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
        maps = maps + a
        x = x + layer.self_attn.out_proj((a @ v).transpose(0, 1).flatten(1))
        x = x + layer.mlp(layer.layer_norm2(x))
    return [*features, x], maps


def embeddings(model, pixels, attention, crop, recipe=CONFERENCE, affinity=None, stride=112):
    """-> [layers, hw, D]. ``affinity`` [hw, hw] is the whole image's, for ``attention`` "proxy"."""
    vision = model.vision_model
    patch, heads = vision.config.patch_size, vision.config.num_attention_heads
    last = vision.encoder.layers[-1]
    _, H, W = pixels.shape
    h, w = H // patch, W // patch
    windows = []  # features by layer, and the patch of the image of each token; -1 is the class token
    for i in range(max(H - crop + stride - 1, 0) // stride + 1):
        for j in range(max(W - crop + stride - 1, 0) // stride + 1):
            bottom, right = min(i * stride + crop, H), min(j * stride + crop, W)
            top, left = max(bottom - crop, 0), max(right - crop, 0)
            rows, columns = range(top // patch, bottom // patch), range(left // patch, right // patch)
            places = [-1, *(r * w + c for r in rows for c in columns)]
            windows.append((hidden(model, pixels[:, top:bottom, left:right])[0], places))
    whole, maps = hidden(model, pixels)

    def mean_by_patch(values):  # of each window [tokens, ...] -> [1 + hw, ...]
        found = [[] for _ in range(h * w + 1)]
        for value, (_, places) in zip(values, windows, strict=True):
            for row, place in zip(value, places, strict=True):
                found[place + 1].append(row)
        return torch.stack([torch.stack(rows).mean(0) for rows in found])

    def project(out, feature):
        out = last.self_attn.out_proj(out)
        out = out - feature if recipe.subtract_input else out
        return F.normalize(model.visual_projection(vision.post_layernorm(out)), dim=-1)

    result = []
    for layer in range(len(whole)):
        maps = maps / maps.sum(-2, keepdim=True)
        maps = maps / maps.sum(-1, keepdim=True)
        inputs = [last.layer_norm1(features[layer]) for features, _ in windows]
        value = [last.self_attn.v_proj(x) for x in inputs]
        if attention in ("fused", "proxy"):
            if attention == "fused":
                s = (maps + maps.transpose(1, 2)) / 2
                level = s.mean(-2, keepdim=True) if recipe.center == "mean" else s.amax(-2, keepdim=True)
                s = (s - recipe.center_weight * level).clamp(min=0)
                s = s / s.sum(-1, keepdim=True)
            else:
                s = torch.zeros(heads, h * w + 1, h * w + 1)
                s[:, 1:, 1:] = affinity
            mixed = (s @ split(mean_by_patch(value), heads)).transpose(0, 1).flatten(1)
            result.append(project(mixed, mean_by_patch([features[layer] for features, _ in windows]))[1:])
            rows = s.mean(0)[1:, 1:]
            continue
        left, right = {"vanilla": "qk", "q-q": "qq", "k-k": "kk", "v-v": "vv"}[attention]
        all_right = torch.cat([getattr(last.self_attn, f"{right}_proj")(x) for x in inputs])
        all_values = torch.cat(value)
        all_places = [place for _, places in windows for place in places]
        embedded, attended = [], []
        for x, (features, _) in zip(inputs, windows, strict=True):
            a, b = split(getattr(last.self_attn, f"{left}_proj")(x), heads), split(all_right, heads)
            s = (a @ b.transpose(1, 2) / a.shape[-1] ** 0.5).softmax(-1)
            mixed = (s @ split(all_values, heads)).transpose(0, 1).flatten(1)
            embedded.append(project(mixed, features[layer]))
            folded = torch.zeros(len(x), h * w + 1)
            for column, place in enumerate(all_places):
                folded[:, place + 1] += s.mean(0)[:, column]
            attended.append(folded)
        result.append(mean_by_patch(embedded)[1:])
        rows = mean_by_patch(attended)[1:, 1:]
    return (rows / rows.sum(-1, keepdim=True)).T @ torch.stack(result)
