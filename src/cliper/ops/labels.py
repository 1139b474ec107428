"""From refined class maps to labels.

Source: arXiv 2411.13836; ``docs/method.md``, section 4.
"""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import ShapeError

__all__ = ["assign_labels", "class_confidence", "class_scores", "label_strips"]

# Size of the upsampled maps in memory at a time while labels are assigned: 4 MiB of float32, which stay in the cache.
_CHUNK_ELEMENTS = 1024 * 1024


def class_confidence(refined: Tensor, maps: Tensor) -> Tensor:
    """Half the spatial maximum of the refined maps plus half that of the maps before refinement.

    Args:
        refined: [C, S, S'].
        maps: [C, h, w].

    Returns:
        [C] float32.

    Raises:
        ShapeError: not three-dimensional, or different numbers of classes.
    """
    if refined.dim() != 3 or maps.dim() != 3 or len(refined) != len(maps):
        raise ShapeError(
            f"expected refined [C, S, S'] and maps [C, h, w], got {list(refined.shape)} and {list(maps.shape)}"
        )
    return refined.float().amax((-1, -2)) * 0.5 + maps.float().amax((-1, -2)) * 0.5


def assign_labels(
    refined: Tensor,
    maps: Tensor,
    size: tuple[int, int],
    *,
    background_threshold: float = 0.6,
    score_threshold: float = 0.7,
    normalize: bool = True,
) -> Tensor:
    """Label of every pixel, computed in chunks of classes, so that [C, H, W] is never in memory.

    Args:
        refined: [C, S, S'] class maps after refinement.
        maps: [C, h, w] class maps before refinement.
        size: (H, W) of the image.
        background_threshold: value below which a pixel is background; 0 lets background compete as
            ``(1 - maximum over classes) ** 2``.
        score_threshold: classes whose confidence is not above this get no pixel.
        normalize: stretch each class to [0, 1] over the image before they are compared.

    Returns:
        [H, W] int64: 0 is background, ``i + 1`` is class i.

    Raises:
        ShapeError: maps that do not fit together, or an empty size.

    Example:
        >>> left = torch.tensor([[[1.0, 0.0]]])
        >>> assign_labels(left, left, (1, 2), background_threshold=0.5, score_threshold=0.5)
        tensor([[1, 0]])
    """
    confidence = class_confidence(refined, maps)
    values = _upsampled_maps(refined, confidence, _check(size), score_threshold, normalize)
    return _best_labels(values, size, background_threshold, refined.device)


def label_strips(
    refined: Tensor,
    maps: Tensor,
    size: tuple[int, int],
    rows: int,
    *,
    background_threshold: float = 0.6,
    score_threshold: float = 0.7,
    normalize: bool = True,
) -> Iterator[Tensor]:
    """As :func:`assign_labels`, for label maps that do not fit in memory: strips of ``rows`` rows, from the top.

    The maps are upsampled twice: first for their extremes, which values are scaled by.

    Yields:
        [rows, W] int64; the last strip may have less rows.
    """
    confidence = class_confidence(refined, maps)
    on = [index for index, keep in enumerate((confidence > score_threshold).tolist()) if keep]
    height, width = _check(size)

    def upsample(index: int, top: int) -> Tensor:
        """Rows of a map from ``top`` on, [rows, W]: bilinear, as of the whole map."""
        place = torch.arange(top, min(top + rows, height), device=refined.device, dtype=torch.float32)
        place = ((place + 0.5) * (refined.shape[1] / height) - 0.5).clamp_(0, refined.shape[1] - 1)
        above = place.long()
        below = (above + 1).clamp_max(refined.shape[1] - 1)
        lines = torch.lerp(refined[index, above].float(), refined[index, below].float(), (place - above)[:, None])
        return F.interpolate(lines[None], size=width, mode="linear", align_corners=False)[0]

    def scaled(top: int) -> Iterator[tuple[int, Tensor]]:
        for index in on:
            m = upsample(index, top)
            _scale(m, *extremes[index], confidence[index])
            yield index, m

    tops = range(0, height, rows)
    extremes: dict[int, tuple[Tensor | None, Tensor]] = {}
    for index in on:
        low, high = zip(*(upsample(index, top).aminmax() for top in tops), strict=True)
        extremes[index] = torch.stack(low).amin() if normalize else None, torch.stack(high).amax()
    for top in tops:
        strip = (min(rows, height - top), width)
        yield _best_labels(scaled(top), strip, background_threshold, refined.device)


def _best_labels(
    values: Iterable[tuple[int, Tensor]], size: tuple[int, int], background_threshold: float, device: torch.device
) -> Tensor:
    # 0 is the value of a class without confidence: only values above it can win.
    best = torch.zeros(size, device=device)
    labels = torch.zeros(size, dtype=torch.int64, device=device)
    for index, value in values:
        labels.masked_fill_(value > best, index + 1)  # on a tie the first class wins, as in argmax
        best = torch.maximum(best, value)
    if background_threshold > 0:
        return torch.where(best < background_threshold, 0, labels)
    return torch.where((1 - best) ** 2 >= best, 0, labels)


def class_scores(
    refined: Tensor, maps: Tensor, size: tuple[int, int], *, score_threshold: float = 0.7, normalize: bool = True
) -> Tensor:
    """The values that :func:`assign_labels` compares, before the background threshold.

    Args and errors are those of :func:`assign_labels`.

    Returns:
        [C, H, W] float32; 0 for classes without confidence. This is large: 4 * C * H * W bytes.
    """
    confidence = class_confidence(refined, maps)
    scores = torch.zeros((len(refined), *_check(size)), device=refined.device)
    for index, value in _upsampled_maps(refined, confidence, size, score_threshold, normalize):
        scores[index] = value
    return scores


def _upsampled_maps(
    refined: Tensor, confidence: Tensor, size: tuple[int, int], score_threshold: float, normalize: bool
) -> Iterator[tuple[int, Tensor]]:
    """(class, [H, W]) of the classes whose confidence is above ``score``, in order."""
    on = [index for index, keep in enumerate((confidence > score_threshold).tolist()) if keep]
    step = max(1, _CHUNK_ELEMENTS // (size[0] * size[1]))
    for first in range(0, len(on), step):
        chunk = on[first : first + step]
        m = F.interpolate(refined[chunk].float()[None], size=size, mode="bilinear", align_corners=False)[0]
        low = m.amin((-1, -2), keepdim=True) if normalize else None
        _scale(m, low, m.amax((-1, -2), keepdim=True), confidence[chunk, None, None])
        yield from zip(chunk, m, strict=True)


def _scale(m: Tensor, low: Tensor | None, high: Tensor, factor: Tensor) -> None:
    """Scale maps of extremes ``low`` and ``high`` in place: to the confidence, or with ``low`` to [0, 1]."""
    level = high + 1e-5
    if low is None:
        m.div_(level).mul_(factor)
    else:
        # The extremes of the scaled map are its scaled extremes: no step changes the order of values.
        low, high = low / level * factor, high / level * factor
        m.div_(level).mul_(factor).sub_(low).div_(high - low + 1e-6)


def _check(size: tuple[int, int]) -> tuple[int, int]:
    height, width = size
    if height < 1 or width < 1:
        raise ShapeError(f"size: expected (height, width) of at least (1, 1), got {tuple(size)}")
    return height, width
