"""The lean layers, beside those that they replace."""

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from cliper.ops.parallel import ordered_map
from cliper.refiners import lean
from cliper.refiners.pool import Pool, give_back_memory
from cliper.refiners.winograd import WinogradConv2d

CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(
    not lean._can_pack(torch.float32), reason="this build of PyTorch has no oneDNN operators"
)

# Sums in another order, values of about 1.
TOLERANCE = 2e-5
# Winograd's points are not whole numbers: about three times the rounding error of a plain sum of 9 * C products.
WINOGRAD_TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def _inference() -> None:
    with torch.inference_mode():
        torch.manual_seed(0)
        yield


def lean_copy(module: nn.Module, **how) -> nn.Module:
    """The module made lean, with the same weights."""
    import copy

    holder = nn.ModuleDict({"it": copy.deepcopy(module)})
    lean.make_lean(holder, CPU, torch.float32, Pool(), large=lambda _: True, **how)
    for name, weights in nn.ModuleDict({"it": module}).named_parameters():
        owner, _, leaf = name.rpartition(".")
        part = holder.get_submodule(owner)
        if leaf == "weight" and hasattr(part, "pack"):
            part.pack(weights)
    return holder["it"]


def picture(*shape: int, last: bool = True) -> Tensor:
    x = torch.randn(*shape)
    return x.contiguous(memory_format=torch.channels_last) if last else x


@needs_onednn
@pytest.mark.parametrize("size", [(48, 48), (52, 64), (96, 100), (200, 48)])
@pytest.mark.parametrize("last", [True, False])
def test_winograd_convolution(size: tuple[int, int], last: bool) -> None:
    plain = nn.Conv2d(64, 80, 3, padding=1)
    ours = WinogradConv2d(plain, Pool())
    ours.pack(plain.weight)
    x = picture(2, 64, *size, last=last)
    before = x.clone()
    assert WinogradConv2d.can_replace(plain)
    assert ours.fits(x)
    torch.testing.assert_close(ours(x), plain(x), atol=WINOGRAD_TOLERANCE, rtol=0)
    assert torch.equal(x, before)


@needs_onednn
def test_winograd_rounding_error() -> None:
    """In the mean it is near to that of a plain sum, against float64."""
    plain = nn.Conv2d(128, 128, 3, padding=1)
    ours = WinogradConv2d(plain, Pool())
    ours.pack(plain.weight)
    x = picture(1, 128, 64, 64)
    exact = F.conv2d(x.double(), plain.weight.double(), plain.bias.double(), padding=1)
    ours_error, plain_error = ((y - exact).square().mean().sqrt() for y in (ours(x), plain(x)))
    assert ours_error < 6 * plain_error
    assert ours_error < 5e-6


@needs_onednn
def test_winograd_leaves_small_and_odd_pictures_to_the_plain_convolution() -> None:
    plain = nn.Conv2d(64, 64, 3, padding=1)
    ours = WinogradConv2d(plain, Pool())
    ours.pack(plain.weight)
    for size in ((8, 8), (49, 64), (3, 1000)):
        x = picture(1, 64, *size)
        assert not ours.fits(x)
        torch.testing.assert_close(ours(x), plain(x), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(64, 64, 1),
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, padding=1, stride=2),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(3, 64, 3, padding=1),
        nn.Conv2d(64, 64, 5, padding=2),
    ],
)
def test_winograd_is_for_one_kind_of_convolution(conv: nn.Conv2d) -> None:
    assert not WinogradConv2d.can_replace(conv)


@needs_onednn
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(("size", "channels"), [(64, (64, 64)), (64, (96, 64)), (8, (64, 96)), (16, (16, 16))])
@pytest.mark.parametrize("timed", [True, False])
def test_residual_block(size: int, channels: tuple[int, int], timed: bool, last: bool) -> None:
    block = ResnetBlock2D(
        in_channels=channels[0], out_channels=channels[1], temb_channels=32 if timed else None, groups=8
    ).eval()
    temb = torch.randn(2, 32) if timed else None
    x = picture(2, channels[0], size, size, last=last)
    before = x.clone(), None if temb is None else temb.clone()
    expected = block(x, temb)
    ours = lean_copy(block)
    assert type(ours) is lean.LeanResnet
    for _ in range(2):  # the second time in memory that is there
        torch.testing.assert_close(ours(x, temb), expected, atol=WINOGRAD_TOLERANCE, rtol=0)
    assert torch.equal(x, before[0])
    assert temb is None or torch.equal(temb, before[1])
    in_place = lean_copy(block, in_place=True)
    torch.testing.assert_close(in_place(x.clone(), temb), expected, atol=WINOGRAD_TOLERANCE, rtol=0)


@needs_onednn
def test_group_norm_of_large_means() -> None:
    """Where a difference of large sums would lose everything."""
    block = ResnetBlock2D(in_channels=64, out_channels=64, temb_channels=None, groups=8).eval()
    x = picture(1, 64, 64, 64) * 0.1 + 300
    normed = F.silu(F.group_norm(x.double(), 8).float())
    exact = block.conv1(normed)
    ours = lean_copy(block).conv1
    # A float32 of 300 is right to 1.5e-5, which the normalisation multiplies by 10.
    torch.testing.assert_close(ours.fused(x, norm=block.norm1), exact, atol=1e-3, rtol=0)


@needs_onednn
@pytest.mark.parametrize("size", [(8, 8), (64, 96)])
def test_downsampling_of_the_autoencoder(size: tuple[int, int]) -> None:
    block = Downsample2D(32, use_conv=True, out_channels=32, padding=0, name="op").eval()
    ours = lean_copy(block)
    assert type(ours) is lean.LeanDownsample
    x = picture(2, 32, *size)
    torch.testing.assert_close(ours(x), block(x), atol=TOLERANCE, rtol=0)
    padded_by_conv = Downsample2D(32, use_conv=True, out_channels=32, padding=1, name="op")
    assert type(lean_copy(padded_by_conv)) is Downsample2D


@needs_onednn
@pytest.mark.parametrize("tokens", [5, 1024, 3000])
def test_feed_forward(tokens: int) -> None:
    block = FeedForward(16, activation_fn="geglu").eval()
    ours = lean_copy(block)
    assert type(ours) is lean.LeanFeedForward
    x = torch.randn(2, tokens, 16)
    torch.testing.assert_close(ours(x), block(x), atol=TOLERANCE, rtol=0)
    assert type(lean_copy(FeedForward(16, activation_fn="gelu"))) is FeedForward


@needs_onednn
def test_linear_and_other_convolutions() -> None:
    x, y = torch.randn(3, 7, 24), picture(2, 24, 9, 11)
    for plain, given, kind in (
        (nn.Linear(24, 40), x, lean.PackedLinear),
        (nn.Linear(24, 40, bias=False), x[0, :1], lean.PackedLinear),
        (nn.Conv2d(24, 40, 3, padding=1), y, lean.PackedConv2d),
        (nn.Conv2d(24, 40, 3, stride=2), y.contiguous(), lean.PackedConv2d),
        (nn.Conv2d(24, 40, 1), y, lean.PointwiseConv2d),
        (nn.Conv2d(24, 40, 1, bias=False), y.contiguous(), lean.PointwiseConv2d),
    ):
        ours = lean_copy(plain)
        assert type(ours) is kind
        torch.testing.assert_close(ours(given), plain(given), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("keys", [77, 1024, 1500])
@pytest.mark.parametrize("width", [8, 40])
def test_attention(keys: int, width: int) -> None:
    query, key, value = torch.randn(2, 3, 1100, width), torch.randn(2, 3, keys, width), torch.randn(2, 3, keys, width)
    expected = (query @ key.transpose(-1, -2) * 0.3).softmax(-1) @ value
    torch.testing.assert_close(lean.attend(query, key, value, 0.3), expected, atol=TOLERANCE, rtol=0)


@needs_onednn
def test_attention_of_the_autoencoder() -> None:
    attn = Attention(
        32, heads=1, dim_head=32, norm_num_groups=8, residual_connection=True, bias=True, rescale_output_factor=2.0
    ).eval()
    x = picture(2, 32, 12, 9)
    expected = attn(x)
    assert lean.LeanVaeAttention.can_replace(attn)
    attn.set_processor(lean.LeanVaeAttention())
    torch.testing.assert_close(attn(x), expected, atol=TOLERANCE, rtol=0)


def test_without_onednn_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "_can_pack", lambda _: False)
    assert type(lean_copy(nn.Linear(3, 4))) is nn.Linear


AVX2_ONLY = """
import torch
from cliper.refiners import lean, load_refiner
from cliper.settings import Settings
import sys
print(lean._can_pack(torch.float32), lean._can_pack(torch.bfloat16))
refiner = load_refiner(sys.argv[1], device="cpu", dtype=torch.bfloat16)
print(any(isinstance(part, lean.PackedLinear) for part in refiner.unet.modules()))
print(refiner.refine([torch.rand(3, 40, 50)], [torch.rand(2, 3, 4)], Settings(refine_size=64))[0].isfinite().all())
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="about x86 processors")
def test_a_processor_without_bfloat16_has_plain_layers(pipelines: dict[str, Path]) -> None:
    """oneDNN and PyTorch are told that the processor has no more than AVX2, where oneDNN refuses bfloat16."""
    done = subprocess.run(
        [sys.executable, "-c", AVX2_ONLY, str(pipelines["sd2.1"])],
        env=os.environ | {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    [can, replaced, finite] = done.stdout.splitlines()
    assert can.endswith(replaced)  # packed layers exactly where they work
    assert finite == "tensor(True)"


def test_pool_gives_the_same_memory_again() -> None:
    pool = Pool()
    first = pool.take("a", 4, 5)
    assert pool.take("a", 10).data_ptr() == first.data_ptr()
    assert pool.take("b", 10).data_ptr() != first.data_ptr()
    assert pool.take("a", 100).shape == (100,)
    give_back_memory()


def test_pool_does_not_grow_with_the_number_of_callers() -> None:
    """As in a web server, which has a thread for each of many requests: they take turns."""
    pool, turn = Pool(), threading.Lock()
    held = threading.Barrier(9)

    def call() -> None:
        with turn:
            for _ in ordered_map(lambda index: pool.take("piece", 1000), 4):
                pass
            pool.take("whole", 1000)
        held.wait()  # nobody ends before all have been there: threads that have ended could lend their numbers

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    held.wait()
    for thread in threads:
        thread.join()
    # One for the callers, and for each worker one (or none: with one core callers do the work themselves).
    assert len(pool._pieces) <= 1 + max(1, torch.get_num_threads())


def test_workers_have_memory_of_their_own() -> None:
    pool, both = Pool(), threading.Barrier(2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        mine = pool.take("piece", 10)

        def work(index: int) -> int:
            both.wait(timeout=60)  # both workers are at it
            return pool.take("piece", 10).data_ptr()

        assert len({mine.data_ptr(), *ordered_map(work, 2)}) == 3
    finally:
        torch.set_num_threads(before)
