"""From patch embeddings and text embeddings to one map per class.

Source: arXiv 2411.13836; ``docs/method.md``, section 2.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import ShapeError
from cliper.ops.recipes import Recipe

__all__ = ["build_text_classifier", "class_maps", "class_probabilities", "expand_synonyms"]


def build_text_classifier(foreground: Tensor, background: Tensor | None = None, *, with_mean: bool = True) -> Tensor:
    """The text classifier that patches are compared with: classes, background names, and the mean of the classes.

    Args:
        foreground: [C, D] text embeddings of the classes, C >= 1.
        background: [B, D] or None; B may be 0.
        with_mean: whether the mean of the classes is a text too, as in the method. For a single class it equals
            that class and halves its probability.

    Returns:
        [C + B + 1, D] float32, rows of length 1; one row less without the mean.

    Raises:
        ShapeError: not two-dimensional, no class, or widths that differ.
    """
    if foreground.dim() != 2 or foreground.shape[0] == 0:
        raise ShapeError(f"foreground: expected [C, D] with C >= 1, got {list(foreground.shape)}")
    rows = [foreground]
    if background is not None:
        if background.dim() != 2 or background.shape[1] != foreground.shape[1]:
            raise ShapeError(
                f"background: expected [B, {foreground.shape[1]}] like foreground, got {list(background.shape)}"
            )
        rows.append(background)
    if with_mean:
        rows.append(foreground.mean(0, keepdim=True))
    return F.normalize(torch.cat(rows).float(), dim=-1)


def expand_synonyms(texts: Tensor, synonyms: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
    """Replace texts by their synonyms, for the soft merge of :func:`class_probabilities`.

    Args:
        texts: [T, D] from :func:`build_text_classifier`.
        synonyms: from the index of a text to the [n, D] embeddings of its synonyms, n >= 1, rows of length 1.

    Returns:
        [R, D] float32, the synonyms in place of each text that has any, and [R] int64, ascending: the text of each row.
    """
    parts = [synonyms.get(index, texts[index : index + 1]).to(texts) for index in range(len(texts))]
    sizes = torch.tensor([len(part) for part in parts], device=texts.device)
    return torch.cat(parts), torch.arange(len(texts), device=texts.device).repeat_interleave(sizes)


def class_probabilities(
    embeddings: Tensor, texts: Tensor, logit_scale: float | Tensor, num_classes: int, groups: Tensor | None = None
) -> Tensor:
    """Softmax over the texts of ``logit_scale * cosine``, for the first ``num_classes`` texts.

    With ``groups`` the logit of a text with n rows is the log-sum-exp of theirs, each with weight 1 / n. Equal
    synonyms are therefore like one, and a text is not more likely because it has more of them.

    Args:
        embeddings: [P, D] float32 patch embeddings of length 1 (or means of such).
        texts: [R, D] float32 of length 1.
        logit_scale: multiplies the cosine; a scalar tensor in an export.
        num_classes: C, at most the number of texts.
        groups: [R] int64 from :func:`expand_synonyms`; None if each row is a text.

    Returns:
        [C, P] float32 in [0, 1].
    """
    logits = (embeddings @ texts.t()).mul_(logit_scale)
    if groups is None:
        return torch.softmax(logits, dim=-1)[:, :num_classes].t()
    # A softmax over the rows, summed over the rows of each text, is the softmax over the texts' log-sum-exp.
    membership = F.one_hot(groups).to(logits)
    probabilities = torch.softmax(logits - membership.sum(0).log()[groups], dim=-1)
    return (probabilities @ membership)[:, :num_classes].t()


def class_maps(
    embeddings: Tensor,
    affinity: Tensor,
    texts: Tensor,
    num_classes: int,
    *,
    logit_scale: float | Tensor,
    map_threshold: float | Tensor,
    selected: int,
    recipe: Recipe,
    fuse_features: bool = True,
    window_embeddings: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Class maps before refinement. Only one layer's scores and the selected layer's are in memory at a time.

    Args:
        embeddings: [L', P, D] float32, patches' embeddings by layer, of length 1.
        affinity: [P, P] float32, the last layer's attention averaged over heads, class token dropped.
        texts: [T, D] from :func:`build_text_classifier`, or [R, D] from :func:`expand_synonyms`.
        num_classes: how many of the texts are classes.
        logit_scale: multiplies the cosine before the softmax.
        map_threshold: share of a class's own maximum below which the selected layer's map becomes 0.
        selected: index into the first dimension of ``embeddings``.
        recipe: see :class:`Recipe`.
        fuse_features: whether the mean over layers is added.
        window_embeddings: [L', P, D], the same from sliding windows; the scores of both are averaged.
        groups: [R] from :func:`expand_synonyms`, or None.

    Returns:
        [C, P] float32.
    """

    def probabilities(layer: int) -> Tensor:
        scores = class_probabilities(embeddings[layer], texts, logit_scale, num_classes, groups)
        if window_embeddings is None:
            return scores
        return (scores + class_probabilities(window_embeddings[layer], texts, logit_scale, num_classes, groups)) / 2

    embeddings, affinity, texts = embeddings.float(), affinity.float(), texts.float()
    if window_embeddings is not None:
        window_embeddings = window_embeddings.float()
    layers = len(embeddings)
    selected %= layers
    top = probabilities(selected)
    # The thresholded map is also the one in the mean over layers, as in the published implementation.
    top = torch.where(top < top.amax(-1, keepdim=True) * map_threshold, 0.0, top)
    maps = top @ (affinity if recipe.propagate_along == "columns" else affinity.t())
    if fuse_features:
        mean_layers = range(layers if recipe.include_last_layer else layers - 1)
        early = torch.zeros_like(top)
        for layer in mean_layers:
            early += top if layer == selected else probabilities(layer)
        maps = maps + early * (recipe.mean_weight / len(mean_layers))
    if recipe.clip_to_one:
        maps = maps / maps.amax(-1, keepdim=True).clamp_min(1)
    return maps
