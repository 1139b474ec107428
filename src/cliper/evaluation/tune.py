"""Choose thresholds, logit scale and background words on a few labelled images.

The networks run once on each image. The search runs on the features that they gave: each candidate of logit scale and
background words gives class maps, and all pairs of thresholds are counted on these maps at once.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cliper.errors import InputError
from cliper.model_config import concurrency
from cliper.prompts import Classes, ClassPrompt, scene_background

if TYPE_CHECKING:
    from torch import Tensor

    from cliper.evaluation.labelled_images import LabelledImage
    from cliper.segmenter import Segmenter
    from cliper.settings import Settings

__all__ = ["MIN_IMPROVEMENT", "Measure", "TuneResult", "count_thresholds", "tune"]

MIN_IMPROVEMENT = 0.005  # of the mIoU by cross-validation, below which the given settings are kept

# On 20 images of VOC, single words that added less than this lowered the mIoU of the other 130 images.
_MIN_GAIN = 0.01  # of the mIoU, from which a background word is added or left out
_SCALES = (0.5, 0.7, 0.85, 1.2, 1.5, 2.0)  # times the given logit scale
_SCORE_THRESHOLDS = tuple(step / 10 for step in range(10))
_BACKGROUND_THRESHOLDS = (1e-4, *(step / 20 for step in range(1, 20)))
_COMPETING = (3 - 5**0.5) / 2  # (1 - x)^2 >= x up to here: what a background threshold of 0 means
_RESAMPLES = 40  # of the images, over which the mIoU of a candidate is averaged
_MAX_COUNTS_BYTES = 2**29  # of the counts of candidates that are kept; a candidate may be counted again

Background = tuple[ClassPrompt, ...]


class Measure(NamedTuple):
    """Accuracy on labelled images, in [0, 1].

    Args:
        iou: of each label; NaN for labels that are not in the ground truth.
        miou: mean over the labels of the ground truth.
    """

    iou: list[float]
    miou: float


class TuneResult(NamedTuple):
    """What :func:`tune` found.

    Args:
        settings: the chosen ones; the given ones if tuning does not help.
        background: the chosen one: ``"auto"``, ``"none"`` or names.
        before: of the given settings, on all images.
        after: by cross-validation: each image is measured with what was chosen on the images of the other folds.
        improved: whether the mIoU of ``after`` is above that of ``before`` by :data:`MIN_IMPROVEMENT`.
    """

    settings: Settings
    background: str | Background
    before: Measure
    after: Measure
    improved: bool


def tune(
    segmenter: Segmenter,
    images: Sequence[LabelledImage],
    classes: Sequence[ClassPrompt],
    background: Classes | None = "auto",
    *,
    ignore: Sequence[int] = (255,),
    templates: tuple[str, ...] | None = None,
    folds: int = 5,
    notify: Callable[[str], None] = lambda step: None,
) -> TuneResult:
    """Choose settings and background names by mIoU.

    Candidates are logit scales around the given one, the given background names, ``"auto"`` and none, single scene
    words added or left out, and both thresholds.

    Args:
        segmenter: its settings are the given ones.
        images: at least two, encoded by ``segmenter``.
        classes: C classes; label ``i + 1`` is class i.
        background: the given one, as for :meth:`.Segmenter.__call__`.
        ignore: values of the ground truth that are not counted; with 0 there is no background.
        templates: other templates to try, such as :func:`.choose_templates` gives, or None.
        folds: of the cross-validation, at least 2; at most one for each image is made.
        notify: is called with the name of each step.

    Raises:
        InputError: fewer than two images or folds.
        CliperError: as :meth:`.Segmenter.__call__`.
    """
    if min(len(images), folds) < 2:
        raise InputError(f"expected at least 2 images and 2 folds, got {len(images)} and {folds}; label more images")
    search = _Search(segmenter, images, classes, background, ignore, templates)
    everything = list(range(len(images)))
    folds = min(folds, len(images))
    chosen = []
    for fold in range(folds):
        notify(f"fold {fold + 1} of {folds}")
        held_out = everything[fold::folds]
        chosen.append((search.choose([index for index in everything if index not in held_out]), held_out))
    notify("all images")
    best = search.choose(everything)
    before, after = search.measure([(search.given, everything)]), search.measure(chosen)
    improved = after.miou >= before.miou + MIN_IMPROVEMENT
    settings, names = search.settings(best if improved else search.given)
    return TuneResult(settings if improved else segmenter.settings, names, before, after, improved)


def count_thresholds(
    scores: Tensor,
    confidence: Tensor,
    truth: Tensor,
    score_thresholds: Sequence[float],
    background_thresholds: Sequence[float],
) -> Tensor:
    """Hits and predictions of each label, with every pair of thresholds.

    Args:
        scores: [C, P] float32, from :func:`cliper.ops.class_scores` with all classes on.
        confidence: [C], from :func:`cliper.ops.class_confidence`.
        truth: [P] int64, from 0 to C.
        score_thresholds: S values.
        background_thresholds: B values above 0, ascending.

    Returns:
        [S, B, 2, C + 1] int32: the pixels that rightly have the label, and all pixels that have it.
    """
    import torch

    labels = len(scores) + 1
    bounds = torch.tensor(background_thresholds, dtype=scores.dtype)
    counts = torch.zeros(len(score_thresholds), len(bounds), 2, labels, dtype=torch.int32)
    totals = torch.stack([(truth == 0).sum(), torch.tensor(len(truth))])
    for index, limit in enumerate(score_thresholds):
        on = (confidence > limit).nonzero().flatten()
        best, winner = torch.zeros(len(truth)), torch.zeros(len(truth), dtype=torch.int64)
        if len(on):
            best, position = scores[on].max(0)
            winner = torch.where(best > 0, on[position] + 1, 0)
        level = torch.bucketize(best, bounds, right=True)  # with so many of the thresholds the pixel has a class
        for part, kept in enumerate((winner == truth, truth == truth)):
            key = (level * labels + winner)[kept]
            by_level = torch.bincount(key, minlength=(len(bounds) + 1) * labels).reshape(-1, labels)
            counts[index, :, part] = by_level.flip(0).cumsum(0).flip(0)[1:]
        wrong = torch.bincount(level[(truth == 0) & (winner > 0)], minlength=len(bounds) + 1)
        counts[index, :, 0, 0] = totals[0] - wrong.flip(0).cumsum(0).flip(0)[1:]
        counts[index, :, 1, 0] = totals[1] - counts[index, :, 1, 1:].sum(1)
    return counts


class _Choice(NamedTuple):
    """A candidate: logit scale, templates, background names, and indices of the two thresholds."""

    scale: float
    templates: str | tuple[str, ...]
    background: Background
    score: int
    threshold: int


class _Search:
    """Measures candidates; each is counted once, for all images, and then summed over the images of a fold."""

    def __init__(
        self,
        segmenter: Segmenter,
        images: Sequence[LabelledImage],
        classes: Sequence[ClassPrompt],
        background: Classes | None,
        ignore: Sequence[int],
        templates: tuple[str, ...] | None,
    ) -> None:
        import torch

        score, threshold = segmenter.settings.thresholds()
        threshold = threshold or _COMPETING
        self._segmenter = segmenter
        self._images, self._classes = images, list(classes)
        self._scores = sorted({*_SCORE_THRESHOLDS, score})
        self._thresholds = sorted({*_BACKGROUND_THRESHOLDS, threshold})
        self._counts: dict[tuple[object, ...], Tensor] = {}
        truths = [torch.from_numpy(image.truth.astype("int64")).flatten() for image in images]
        self._counted = [~torch.isin(truth, torch.tensor(list(ignore), dtype=torch.int64)) for truth in truths]
        self._truths = [truth[counted] for truth, counted in zip(truths, self._counted, strict=True)]
        self._rows = torch.stack([torch.bincount(truth, minlength=len(classes) + 1) for truth in self._truths])
        self._scene = tuple(scene_background(classes))
        self._auto = segmenter.text_classifier(self._classes, "auto").background
        names = segmenter.text_classifier(self._classes, background).background
        indices = self._scores.index(score), self._thresholds.index(threshold)
        self.given = _Choice(segmenter.settings.logit_scale, segmenter.settings.templates, names, *indices)
        self._templates = [self.given.templates, *([] if templates is None else [templates])]

    def settings(self, choice: _Choice) -> tuple[Settings, str | Background]:
        """Settings and background of a candidate."""
        threshold = self._thresholds[choice.threshold]
        settings = self._segmenter.settings.replace(
            logit_scale=choice.scale,
            templates=choice.templates,
            score_threshold=self._scores[choice.score],
            background_threshold=0.0 if threshold == _COMPETING else threshold,
            sensitivity=0.5,
        )
        names: str | Background = choice.background or "none"
        # With other templates "auto" might leave out other names.
        is_auto = choice.background == self._auto and choice.templates == self.given.templates
        return settings, "auto" if is_auto else names

    def choose(self, subset: Sequence[int]) -> _Choice:
        """The best candidate on some images: first scale, templates and list of background names, then single words."""
        scales = [self.given.scale, *(min(1e4, round(x * self.given.scale, 4)) for x in _SCALES)]
        best = self.given
        value = float(self._resampled_miou(best, subset)[best.score, best.threshold])
        for background in dict.fromkeys([self.given.background, self._auto, ()]):
            if not background and len(self._classes) == 1:  # one class needs background names
                continue
            for scale, templates in itertools.product(scales, self._templates):
                found, reached = self._best_thresholds(_Choice(scale, templates, background, 0, 0), subset)
                if reached > value:
                    best, value = found, reached
        alone = []
        for word in dict.fromkeys([*self._scene, *best.background]):
            if changed := _changed(best.background, word):
                alone.append((self._best_thresholds(best._replace(background=changed), subset)[1], word))
        needed = value + _MIN_GAIN
        for _, word in sorted((one for one in alone if one[0] >= needed), key=lambda one: -one[0]):
            if changed := _changed(best.background, word):
                found, reached = self._best_thresholds(best._replace(background=changed), subset)
                if reached >= value + _MIN_GAIN:
                    best, value = found, reached
        return best

    def measure(self, choices: Sequence[tuple[_Choice, Sequence[int]]]) -> Measure:
        """IoU over all given images, each with its candidate."""
        import torch

        counts = [self._tally(one)[subset, one.score, one.threshold].sum(0) for one, subset in choices]
        rows = [self._rows[subset].sum(0) for _, subset in choices]
        iou = _iou(torch.stack(counts).sum(0), torch.stack(rows).sum(0))
        return Measure(iou.tolist(), float(iou.nanmean()))

    def _best_thresholds(self, choice: _Choice, subset: Sequence[int]) -> tuple[_Choice, float]:
        """The candidate with the best thresholds, and its mean mIoU over resamples."""
        miou = self._resampled_miou(choice, subset)
        score, threshold = divmod(int(miou.argmax()), len(self._thresholds))
        return choice._replace(score=score, threshold=threshold), float(miou.max())

    def _resampled_miou(self, choice: _Choice, subset: Sequence[int]) -> Tensor:
        """Mean mIoU with each pair of thresholds [S, B] over bootstrap resamples of some images.

        The best candidate on few images is often best by one image; over resamples, it must be good without that one.
        """
        import torch

        draws = torch.randint(len(subset), (_RESAMPLES, len(subset)), generator=torch.Generator().manual_seed(0))
        times = torch.zeros(draws.shape).scatter_add_(1, draws, torch.ones(draws.shape))
        counts = torch.einsum("rn,n...->r...", times, self._tally(choice)[subset].float())
        rows = times @ self._rows[subset].float()
        return _iou(counts, rows[:, None, None]).nanmean(-1).nan_to_num(-1).mean(0)

    def _tally(self, choice: _Choice) -> Tensor:
        """[N, S, B, 2, K]: :func:`count_thresholds` of each image, with a candidate's scale, templates and names."""
        import torch

        key = choice[:3]
        if key not in self._counts:
            settings = self._segmenter.settings.replace(logit_scale=choice.scale, templates=choice.templates)
            segmenter = self._segmenter.with_settings(settings)
            with _threads(concurrency(segmenter)) as pool:
                count = partial(self._count, segmenter, choice.background)
                counts = torch.stack(list(pool.map(count, range(len(self._images)))))
            while self._counts and (len(self._counts) + 1) * counts.nbytes > _MAX_COUNTS_BYTES:
                del self._counts[next(iter(self._counts))]
            self._counts[key] = counts
        return self._counts[key]

    def _count(self, segmenter: Segmenter, background: Background, index: int) -> Tensor:
        import torch

        from cliper.ops.labels import class_scores

        image = self._images[index]
        result = segmenter(image.encoded, self._classes, list(background))
        maps, refined = torch.from_numpy(result.maps), torch.from_numpy(result.refined)
        normalize = segmenter.settings.normalize
        scores = class_scores(refined, maps, image.truth.shape, score_threshold=-1, normalize=normalize)
        scores = scores.flatten(1)[:, self._counted[index]]
        confidence = torch.from_numpy(result.confidence)
        return count_thresholds(scores, confidence, self._truths[index], self._scores, self._thresholds)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that have PyTorch's share of the cores each."""
    import torch

    cores = torch.get_num_threads()
    torch.set_num_threads(max(1, cores // count))
    try:
        with ThreadPoolExecutor(count, "cliper-tune") as pool:
            yield pool
    finally:
        torch.set_num_threads(cores)


def _changed(background: Background, word: ClassPrompt) -> Background:
    """The names without the word if it is among them, else with it."""
    return tuple(name for name in background if name != word) if word in background else (*background, word)


def _iou(counts: Tensor, rows: Tensor) -> Tensor:
    """[..., K] float64 of hits and predictions [..., 2, K]; NaN for labels that are not in the ground truth."""
    import torch

    hits, predicted = counts.double().unbind(-2)
    return torch.where(rows > 0, hits / (rows + predicted - hits), torch.nan)
