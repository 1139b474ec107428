"""Label assignment: the golden files, the oracle, and what is never held in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cliper.errors import ShapeError
from cliper.ops import assign_labels, class_confidence, class_scores, labels
from golden import load_golden
from oracle import reference

CASES = {
    "labels.0": {"background_threshold": 0.6, "score_threshold": 0.4, "normalize": True},
    "labels.1": {"background_threshold": 0.3, "score_threshold": 0.3, "normalize": False},
    "labels.2": {"background_threshold": 0.0, "score_threshold": 0.1, "normalize": False},
}


def reference_names(options: dict[str, Any]) -> dict[str, Any]:
    """The options as the oracle names them."""
    return {name.removesuffix("_threshold"): value for name, value in options.items()}


@pytest.mark.parametrize("case", CASES)
def test_labels_equal_the_published_implementation(case: str) -> None:
    golden = load_golden("refine")
    got = assign_labels(golden["refined.chain"], golden["maps"], (120, 160), **CASES[case])
    assert got.dtype == torch.int64
    assert torch.equal(got, golden[case].long())
    assert len(got.unique()) > 2


def maps_of(seed: int, shape: tuple[int, ...], kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(shape, generator=generator)
    if kind == "ties":  # few values, so that classes are often equal
        return (values * 4).floor() / 4
    if kind == "sparse":  # whole classes at 0
        return values * (torch.rand(shape[0], 1, 1, generator=generator) > 0.5)
    if kind == "large":  # maps are not bounded by 1: a mean is added to a sum
        return values * 3
    return values


side = st.integers(1, 9)
levels = st.sampled_from([0.0, 0.0001, 0.1, 0.3, 0.45, 0.6, 0.9, 1.0])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(1, 40),
    coarse=st.tuples(side, side),
    fine=st.tuples(side, side),
    size=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    kind=st.sampled_from(["plain", "ties", "sparse", "large"]),
    background_threshold=levels,
    score_threshold=levels,
    normalize=st.booleans(),
    chunk=st.sampled_from([1, 100, 1000, labels._CHUNK_ELEMENTS]),
)
def test_labels_equal_the_oracle(
    seed: int,
    classes: int,
    coarse: tuple[int, int],
    fine: tuple[int, int],
    size: tuple[int, int],
    kind: str,
    chunk: int,
    **options: Any,
) -> None:
    """However the classes are cut into chunks: exactly, but where two classes tie.

    The kernel that resizes one class alone takes its sums in another order than the one for several, which
    moves values by an ulp or so. Ties are common: stretched classes all have a maximum of 1.
    """
    maps = maps_of(seed, (classes, *coarse), kind)
    refined = maps_of(seed + 1, (classes, *fine), kind)
    kept = maps.clone(), refined.clone()
    # Stretching a flat map to [0, 1] stretches the rounding of its values: nothing that two kernels could share.
    resized = F.interpolate(refined[None], size=size, mode="bilinear")[0]
    flat = (resized.amax((-1, -2)) - resized.amin((-1, -2)) < 1e-2) & (resized.amax((-1, -2)) > 0)
    options["normalize"] &= not flat.any()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels, "_CHUNK_ELEMENTS", chunk)
        got = assign_labels(refined, maps, size, **options)
        scores = class_scores(
            refined, maps, size, score_threshold=options["score_threshold"], normalize=options["normalize"]
        )
    expected = reference.label(refined, maps, size, **reference_names(options))
    if not torch.equal(got, expected):
        level = options["background_threshold"]
        rival = torch.full(size, level) if level else (1 - scores.amax(0)) ** 2
        values = torch.cat([rival[None], scores])
        apart = (values.gather(0, got[None]) - values.gather(0, expected[None])).abs()
        assert apart.max() <= (1e-4 if options["normalize"] else 1e-6)  # an ulp, by a range of 1e-2
    assert torch.equal(kept[0], maps)
    assert torch.equal(kept[1], refined)
    # What labels were chosen by says the same.
    best, index = scores.max(0)
    level = options["background_threshold"]
    off = (1 - best) ** 2 >= best if level == 0 else (best < level) | (best <= 0)
    assert torch.equal(got, torch.where(off, 0, index + 1))


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 40), st.tuples(side, side), st.tuples(side, side), levels, st.booleans())
def test_labels_are_bitwise_equal_to_the_oracle_in_one_chunk(
    seed: int, classes: int, shape: tuple[int, int], size: tuple[int, int], background: float, normalize: bool
) -> None:
    """Ties too: where no class is off and all are resized together, the kernel is the oracle's."""
    maps = maps_of(seed, (classes, *shape), "ties") + 0.25
    options = {"background_threshold": background, "score_threshold": 0.1, "normalize": normalize}
    assert torch.equal(
        assign_labels(maps, maps, size, **options), reference.label(maps, maps, size, **reference_names(options))
    )


@pytest.mark.parametrize("background", [0.0, 0.5])
def test_no_confident_class_gives_background(background: float) -> None:
    maps = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.5
    options = {"background_threshold": background, "score_threshold": 0.6, "normalize": True}
    assert class_confidence(maps, maps).max() <= 0.6
    assert not assign_labels(maps, maps, (5, 6), **options).any()
    assert not reference.label(maps, maps, (5, 6), **reference_names(options)).any()
    assert not class_scores(maps, maps, (5, 6), score_threshold=0.6).any()


def test_confidence_must_exceed_the_score() -> None:
    maps = torch.full((1, 2, 2), 0.5)
    assert not assign_labels(maps, maps, (2, 2), background_threshold=0.1, score_threshold=0.5, normalize=False).any()
    assert assign_labels(maps, maps, (2, 2), background_threshold=0.1, score_threshold=0.49, normalize=False).all()


def test_tie_goes_to_the_first_class() -> None:
    maps = torch.ones(3, 2, 2)
    assert assign_labels(
        maps, maps, (3, 3), background_threshold=0.1, score_threshold=0.1, normalize=False
    ).unique().tolist() == [1]
    maps[0] = 0.5
    assert assign_labels(
        maps, maps, (3, 3), background_threshold=0.1, score_threshold=0.1, normalize=False
    ).unique().tolist() == [2]


def test_confidence_is_the_mean_of_both_maxima() -> None:
    refined = torch.tensor([[[0.2, 0.8]], [[0.0, 0.1]]])
    maps = torch.tensor([[[0.4], [0.0]], [[0.3], [0.9]]])
    torch.testing.assert_close(class_confidence(refined, maps), torch.tensor([0.6, 0.5]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_computed_in_float32(dtype: torch.dtype) -> None:
    refined = torch.rand(4, 5, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    maps = torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(2)).to(dtype)
    got = assign_labels(refined, maps, (7, 8), background_threshold=0.4, score_threshold=0.2)
    assert torch.equal(
        got, assign_labels(refined.float(), maps.float(), (7, 8), background_threshold=0.4, score_threshold=0.2)
    )
    assert class_confidence(refined, maps).dtype == torch.float32
    assert class_scores(refined, maps, (7, 8)).dtype == torch.float32


@pytest.mark.parametrize("chunk", [1, 60 * 50 * 7, labels._CHUNK_ELEMENTS])
def test_full_size_maps_of_all_classes_are_never_in_memory(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    sizes: list[int] = []

    def watched(x: torch.Tensor, **options: Any) -> torch.Tensor:
        out = interpolate(x, **options)
        sizes.append(out.numel())
        return out

    interpolate = F.interpolate
    monkeypatch.setattr(F, "interpolate", watched)
    monkeypatch.setattr(labels, "_CHUNK_ELEMENTS", chunk)
    maps = torch.rand(30, 4, 4, generator=torch.Generator().manual_seed(0)) + 1
    assign_labels(maps, maps, (60, 50), score_threshold=0.5)
    assert sum(sizes) == 30 * 60 * 50
    assert max(sizes) <= max(chunk, 60 * 50)
    assert len(sizes) == {1: 30, 60 * 50 * 7: 5}.get(chunk, 1)


def test_class_below_the_score_is_not_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    interpolate = F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda x, **o: seen.append(x.shape[1]) or interpolate(x, **o))
    maps = torch.ones(6, 2, 2) * torch.tensor([0.1, 0.9, 0.1, 0.9, 0.1, 0.1])[:, None, None]
    assign_labels(maps, maps, (4, 4), score_threshold=0.5)
    assert seen == [2]


@pytest.mark.parametrize(
    ("refined", "maps", "size", "words"),
    [
        ((2, 3, 3), (3, 3, 3), (4, 4), r"got \[2, 3, 3\] and \[3, 3, 3\]"),
        ((3, 3), (1, 3, 3), (4, 4), r"expected refined \[C, S, S'\]"),
        ((1, 3, 3), (1, 1, 3, 3), (4, 4), r"maps \[C, h, w\]"),
        ((1, 3, 3), (1, 3, 3), (0, 4), "size: expected"),
        ((1, 3, 3), (1, 3, 3), (4, -1), "size: expected"),
    ],
)
def test_bad_shapes(refined: Any, maps: Any, size: tuple[int, int], words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        assign_labels(torch.ones(refined), torch.ones(maps), size)
    with pytest.raises(ShapeError, match=words):
        class_scores(torch.ones(refined), torch.ones(maps), size)
