"""A plain, slow statement of DINO as a refiner, for checking the project against.

Written from DINO's own code (https://github.com/facebookresearch/dino) and from ``docs/method.md``, section 3. Weights
come as a transformers `ViTModel`; only its parameters are read. One image at a time, nothing fused; the position table
is resized in float64.
"""

import math

import torch
import torch.nn.functional as F


def cubic_weight(distance):
    """The cubic convolution kernel with a = -0.75, as PyTorch's bicubic resize has it."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def resize_matrix(side, count, scale):
    """[count, side]: row i holds the weights of the inputs for output i; beyond the edge the edge is repeated."""
    weights = torch.zeros(count, side, dtype=torch.float64)
    for i in range(count):
        source = (i + 0.5) / scale - 0.5
        for k in range(math.floor(source) - 1, math.floor(source) + 3):
            weights[i, min(max(k, 0), side - 1)] += cubic_weight(source - k)
    return weights


def position_table(table, grid, offset=0.1):
    """table [1 + s * s, D] -> [1 + h * w, D] float32. With offset 0 it is the plain bicubic resize to the grid."""
    side = round((len(table) - 1) ** 0.5)
    if grid == (side, side):
        return table
    rows, columns = (resize_matrix(side, count, (count + offset) / side) for count in grid)
    patches = torch.einsum("ia,jb,abd->ijd", rows, columns, table[1:].double().reshape(side, side, -1))
    return torch.cat([table[:1], patches.flatten(0, 1).float()])


# Older and newer parameter names of transformers.
RENAMED = (
    ("encoder.layer.", "layers."),
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)


def parameters(model):
    found = {}
    for name, value in model.state_dict().items():
        for old, new in RENAMED:
            name = name.replace(old, new)
        found[name] = value.detach()
    return found


def features(model, image, size, offset=0.1):
    """image [3, H, W] in [0, 1], resized to `size` -> patch features after the last norm [patches, D]."""
    patch, heads = model.config.patch_size, model.config.num_attention_heads
    weights = parameters(model)

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        return F.layer_norm(
            x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], model.config.layer_norm_eps
        )

    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    pixels = (F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0] - mean) / std
    blocks = pixels.unfold(1, patch, patch).unfold(2, patch, patch)  # [3, h, w, patch, patch]
    x = torch.einsum("chwab,dcab->hwd", blocks, weights["embeddings.patch_embeddings.projection.weight"])
    x = x.flatten(0, 1) + weights["embeddings.patch_embeddings.projection.bias"]
    x = torch.cat([weights["embeddings.cls_token"][0], x])
    grid = (size[0] // patch, size[1] // patch)
    x = x + position_table(weights["embeddings.position_embeddings"][0], grid, offset)
    for layer in (f"layers.{index}" for index in range(model.config.num_hidden_layers)):
        h = norm(x, f"{layer}.layernorm_before")
        q, k, v = (linear(h, f"{layer}.attention.{name}_proj").chunk(heads, -1) for name in "qkv")
        mixed = [(a @ b.T / a.shape[-1] ** 0.5).softmax(-1) @ c for a, b, c in zip(q, k, v, strict=True)]
        x = x + linear(torch.cat(mixed, -1), f"{layer}.attention.o_proj")
        h = F.gelu(linear(norm(x, f"{layer}.layernorm_after"), f"{layer}.mlp.fc1"))
        x = x + linear(h, f"{layer}.mlp.fc2")
    return norm(x, "layernorm")[1:]


def whole_patches(shape, patch):
    return tuple(max(side // patch, 1) * patch for side in shape)


def affinity(features):
    """features [P, D] -> [P, P]. Every row is expected to keep something."""
    unit = features / features.norm(dim=-1, keepdim=True)
    q = unit @ unit.T
    q = (q - 1.2 * q.mean()) * 3
    q[q < 0] = -torch.inf
    return q.softmax(-1)


def refine(model, image, maps, size, offset=0.1):
    """image [3, H, W] in [0, 1], maps [C, h, w] -> [C, size / patch]."""
    grid = tuple(side // model.config.patch_size for side in size)
    x = F.interpolate(maps[None], size=grid, mode="bilinear", align_corners=False)[0].flatten(1)
    return (affinity(features(model, image, size, offset)) @ x.T).T.reshape(-1, *grid)
