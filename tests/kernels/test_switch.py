"""``CLIPER_KERNELS=0`` turns every kernel off, and results stay the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import cliper
from cliper.kernels import kernels_enabled, optimize_for_cpu
from cliper.kernels.linear import packed_linear
from cliper.kernels.switch import disable_kernels, enabled_by_environment, use_cpu_kernels
from golden import load_golden, save_golden_clip
from recorded_operators import RecordOperators

# As in tests/test_golden.py: two orders of summation, scaled by 100 before a softmax.
TOLERANCE = 1e-4


@pytest.fixture
def kernels_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment variable is set, and read again."""
    monkeypatch.setenv("CLIPER_KERNELS", "0")
    _forget()
    yield
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    enabled_by_environment.cache_clear()


@pytest.mark.usefixtures("kernels_off")
@pytest.mark.parametrize("patch", [14, 16])
@pytest.mark.parametrize("window", [0, 224])
def test_golden_class_maps_without_kernels(patch: int, window: int, tmp_path: Path) -> None:
    golden = load_golden(f"patch{patch}")
    settings = cliper.Settings(logit_scale=50, map_threshold=0.2, select_layer=-2, window=window)
    segmenter = cliper.Segmenter.from_pretrained(save_golden_clip(patch, tmp_path / "clip"), settings=settings)
    with RecordOperators() as operators:
        maps = segmenter.class_maps(golden["pixels"], golden["foreground"], golden["background"])
    expected = golden["conference.2" if window else "conference.1"]
    torch.testing.assert_close(maps, expected, atol=TOLERANCE, rtol=1e-5)
    assert operators.namespaces == {"aten"}


@pytest.mark.usefixtures("kernels_off")
def test_only_plain_operators_run_without_kernels() -> None:
    x, weight = torch.randn(5, 6), torch.randn(4, 6)
    with torch.no_grad(), RecordOperators() as operators:
        assert torch.equal(packed_linear(weight, 16)(x), x @ weight.T)
    assert operators.namespaces == {"aten"}
    assert not use_cpu_kernels(x)


@pytest.mark.usefixtures("kernels_off")
def test_modules_stay_as_they_are_without_kernels() -> None:
    holder = nn.Sequential(nn.Linear(6, 4, device="meta"))
    optimize_for_cpu(holder, torch.device("cpu"), torch.float32)
    assert type(holder[0]) is nn.Linear


@pytest.mark.parametrize(("value", "enabled"), [(None, True), ("1", True), ("", True), ("0", False), (" 0 ", False)])
def test_switch_is_read_from_the_environment(value: str | None, enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        if value is None:
            patch.delenv("CLIPER_KERNELS", raising=False)
        else:
            patch.setenv("CLIPER_KERNELS", value)
        _forget()
        assert kernels_enabled() is enabled
    _forget()


def test_kernels_are_disabled_in_a_block_only() -> None:
    x, weight = torch.randn(5, 6), torch.randn(4, 6)
    before = kernels_enabled()
    with torch.no_grad(), RecordOperators() as operators, disable_kernels():
        packed_linear(weight, 16)(x)
        assert not use_cpu_kernels(x)
    assert operators.namespaces == {"aten"}
    assert kernels_enabled() is before
