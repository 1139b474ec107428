"""The lean layers, beside those that they replace."""

import copy
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from cliper.refiners import lean

CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(
    not lean._can_pack(torch.float32), reason="this build of PyTorch has no oneDNN operators"
)

# Sums in another order, values of about 1.
TOLERANCE = 2e-5


@pytest.fixture(autouse=True)
def _inference() -> None:
    with torch.inference_mode():
        torch.manual_seed(0)
        yield


def lean_copy(module: nn.Module) -> nn.Module:
    """The module made lean, with the same weights."""
    holder = nn.ModuleDict({"it": copy.deepcopy(module)})
    lean.make_lean(holder, CPU, torch.float32)
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
    torch.testing.assert_close(ours(x, temb), expected, atol=TOLERANCE, rtol=0)
    assert torch.equal(x, before[0])
    assert temb is None or torch.equal(temb, before[1])


@needs_onednn
def test_residual_block_is_accurate_in_channels_last_memory() -> None:
    """In that memory PyTorch's group norm makes this block 70 times less accurate."""
    block = ResnetBlock2D(in_channels=16, out_channels=16, temb_channels=None, groups=8).eval()
    x = torch.randn(1, 16, 256, 256) + 10
    exact = copy.deepcopy(block).double()(x.double(), None)
    plain = (block(x, None) - exact).abs().quantile(0.9)
    got = lean_copy(block)(x.contiguous(memory_format=torch.channels_last), None)
    assert (got - exact).abs().quantile(0.9) <= 2 * plain


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
def test_linear() -> None:
    x = torch.randn(3, 7, 24)
    for plain, given in ((nn.Linear(24, 40), x), (nn.Linear(24, 40, bias=False), x[0, :1])):
        ours = lean_copy(plain)
        assert type(ours) is lean.PackedLinear
        torch.testing.assert_close(ours(given), plain(given), atol=TOLERANCE, rtol=0)


def test_convolutions_stay_as_accurate_as_in_pytorch() -> None:
    """oneDNN's convolution of packed weights rounds worse."""
    conv = nn.Conv2d(24, 40, 3, padding=1)
    assert type(lean_copy(conv)) is nn.Conv2d


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
    got = attn(x.contiguous())
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
    assert got.is_contiguous()  # what follows is less accurate in channels-last memory


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
