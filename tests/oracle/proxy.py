"""A plain, slow statement of ``attention: proxy``, for checking the project against: an extension of ``reference``.

The last layer attends by the affinity of a DINO's patch features, which are resized to CLIP's grid, in place of the
fused attention. The class token attends to nothing, and nothing attends to it.
"""

import torch
import torch.nn.functional as F

from oracle import dino, reference


def unnormalised(pixels):
    """CLIP's pixels -> an image in [0, 1]."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    return pixels * std + mean


def proxy_affinity(vit, pixels, grid):
    """pixels [3, H, W], normalised for CLIP -> [h * w, h * w] for the grid (h, w)."""
    image = unnormalised(pixels)
    size = dino.whole_patches(image.shape[1:], vit.config.patch_size)
    rows, columns = (side // vit.config.patch_size for side in size)
    planes = dino.features(vit, image, size).T.reshape(1, -1, rows, columns)
    planes = F.interpolate(planes, size=grid, mode="bilinear", align_corners=False)
    return dino.affinity(planes[0].flatten(1).T)


def encode(model, vit, pixels, recipe):
    """pixels [3, H, W] -> (embeddings [layers, 1 + hw, D], affinity [hw, hw])."""
    vision = model.vision_model
    patch, heads = vision.config.patch_size, vision.config.num_attention_heads
    grid = (pixels.shape[1] // patch, pixels.shape[2] // patch)
    x = vision.embeddings.patch_embedding(pixels[None]).flatten(2)[0].T
    x = torch.cat([vision.embeddings.class_embedding[None], x]) + reference.position_embedding(vision, grid)
    x = vision.pre_layrnorm(x)
    features = []
    *body, last = vision.encoder.layers
    for layer in body:
        h = layer.layer_norm1(x)
        features.append(h)
        own = layer.self_attn
        q, k, v = (reference.split(p(h), heads) for p in (own.q_proj, own.k_proj, own.v_proj))
        a = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
        x = x + own.out_proj((a @ v).transpose(0, 1).flatten(1))
        x = x + layer.mlp(layer.layer_norm2(x))
    features.append(x)
    affinity = proxy_affinity(vit, pixels, grid)
    padded = F.pad(affinity, (1, 0, 1, 0))
    out = []
    for f in features:
        v = reference.split(last.self_attn.v_proj(last.layer_norm1(f)), heads)
        o = last.self_attn.out_proj((padded @ v).transpose(0, 1).flatten(1))
        out.append(o - f if recipe.subtract_input else o)
    return model.visual_projection(vision.post_layernorm(torch.stack(out))), affinity


def slide(model, vit, pixels, text, scale, crop, recipe, stride=112):
    patch = model.vision_model.config.patch_size
    _, H, W = pixels.shape
    h, w = H // patch, W // patch
    layers = model.vision_model.config.num_hidden_layers
    total, seen = torch.zeros(layers, len(text), h, w), torch.zeros(h, w)
    att, att_seen = torch.zeros(h, w, h, w), torch.zeros(h, w, h, w)
    for i in range(max(H - crop + stride - 1, 0) // stride + 1):
        for j in range(max(W - crop + stride - 1, 0) // stride + 1):
            y2, x2 = min(i * stride + crop, H), min(j * stride + crop, W)
            y1, x1 = max(y2 - crop, 0), max(x2 - crop, 0)
            e, a = encode(model, vit, pixels[:, y1:y2, x1:x2], recipe)
            r, c = slice(y1 // patch, y2 // patch), slice(x1 // patch, x2 // patch)
            hh, ww = r.stop - r.start, c.stop - c.start
            scores = reference.logits(e[:, 1:], text, scale).transpose(1, 2)
            total[:, :, r, c] += scores.reshape(layers, len(text), hh, ww)
            seen[r, c] += 1
            att[r, c, r, c] += a.reshape(hh, ww, hh, ww)
            att_seen[r, c, r, c] += 1
    att = (att / (att_seen + 1e-5)).reshape(h * w, h * w)
    att = att / att.sum(-1, keepdim=True)
    return ((total / seen).flatten(2) @ att).reshape(layers, len(text), h, w)


def coarse(model, vit, pixels, fg, bg, *, scale, threshold, layer=-1, crop=0, recipe=reference.CONFERENCE):
    """-> class maps [C, h, w] before refinement."""
    patch = model.vision_model.config.patch_size
    h, w = pixels.shape[1] // patch, pixels.shape[2] // patch
    text = torch.cat([fg, bg, fg.mean(0, keepdim=True)])
    e, a = encode(model, vit, pixels, recipe)
    seg = reference.logits(e[:, 1:], text, scale).transpose(1, 2).reshape(-1, len(text), h, w)
    seg = seg.softmax(1)[:, : len(fg)]
    if crop:
        other = slide(model, vit, pixels, text, scale, crop, recipe).softmax(1)[:, : len(fg)]
        seg = (seg + other) / 2
    seg = seg.clone()
    top = seg[layer]
    top[top < top.amax((-1, -2), keepdim=True) * threshold] = 0
    spread = (top.flatten(1) @ (a if recipe.spread == "columns" else a.T)).reshape(len(fg), h, w)
    early = seg if recipe.last_in_mean else seg[:-1]
    out = spread + recipe.early_weight * early.mean(0)
    return out / out.amax((-1, -2), keepdim=True).clamp(min=1) if recipe.cap else out
