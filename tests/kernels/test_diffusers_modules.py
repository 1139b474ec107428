"""The replacement modules compared with the modules of diffusers that they replace."""

import copy

import pytest
import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from cliper.kernels import model, optimize_for_cpu
from cliper.kernels.attention import chunked_attention
from cliper.kernels.diffusers_modules import ChunkedFeedForward, ChunkedVaeAttention, FusedResnetBlock
from cliper.kernels.linear import PackedLinear, can_pack

CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(not can_pack(torch.float32), reason="this build of PyTorch has no oneDNN operators")

# Sums in another order, values of about 1.
TOLERANCE = 2e-5


@pytest.fixture(autouse=True)
def _inference() -> None:
    with torch.inference_mode():
        torch.manual_seed(0)
        yield


def optimized_copy(module: nn.Module) -> nn.Module:
    """The module, optimized, with the same weights."""
    with torch.device("meta"):
        holder = nn.ModuleDict({"module": copy.deepcopy(module).to("meta")})
    optimize_for_cpu(holder, CPU, torch.float32)
    for name, weights in nn.ModuleDict({"module": module}).named_parameters():
        owner, _, leaf = name.rpartition(".")
        part = holder.get_submodule(owner)
        if leaf == "weight" and hasattr(part, "load_weight"):
            part.load_weight(weights)
        else:
            setattr(part, leaf, nn.Parameter(weights.detach().clone(), requires_grad=False))
    return holder["module"]


def random_image(*shape: int, channels_last: bool = True) -> Tensor:
    x = torch.randn(*shape)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


@needs_onednn
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("size", "channels"), [(64, (64, 64)), (64, (96, 64)), (8, (64, 96)), (16, (16, 16))])
@pytest.mark.parametrize("timed", [True, False])
def test_residual_block_equals_diffusers(
    size: int, channels: tuple[int, int], timed: bool, channels_last: bool
) -> None:
    block = ResnetBlock2D(
        in_channels=channels[0], out_channels=channels[1], temb_channels=32 if timed else None, groups=8
    ).eval()
    temb = torch.randn(2, 32) if timed else None
    x = random_image(2, channels[0], size, size, channels_last=channels_last)
    before = x.clone(), None if temb is None else temb.clone()
    expected = block(x, temb)
    ours = optimized_copy(block)
    assert type(ours) is FusedResnetBlock
    torch.testing.assert_close(ours(x, temb), expected, atol=TOLERANCE, rtol=0)
    assert torch.equal(x, before[0])
    assert temb is None or torch.equal(temb, before[1])


@needs_onednn
@pytest.mark.parametrize("tokens", [5, 1024, 3000])
def test_feed_forward_equals_diffusers(tokens: int) -> None:
    block = FeedForward(16, activation_fn="geglu").eval()
    ours = optimized_copy(block)
    assert type(ours) is ChunkedFeedForward
    x = torch.randn(2, tokens, 16)
    torch.testing.assert_close(ours(x), block(x), atol=TOLERANCE, rtol=0)
    assert type(optimized_copy(FeedForward(16, activation_fn="gelu"))) is FeedForward


@needs_onednn
def test_packed_linear_layer_equals_pytorch() -> None:
    x = torch.randn(3, 7, 24)
    for plain, given in ((nn.Linear(24, 40), x), (nn.Linear(24, 40, bias=False), x[0, :1])):
        ours = optimized_copy(plain)
        assert type(ours) is PackedLinear
        torch.testing.assert_close(ours(given), plain(given), atol=TOLERANCE, rtol=0)


def test_convolutions_are_not_replaced() -> None:
    """oneDNN's convolution of packed weights rounds worse."""
    conv = nn.Conv2d(24, 40, 3, padding=1)
    assert type(optimized_copy(conv)) is nn.Conv2d


@pytest.mark.parametrize("keys", [77, 1024, 1500])
@pytest.mark.parametrize("width", [8, 40])
def test_chunked_attention_equals_softmax_of_the_whole_map(keys: int, width: int) -> None:
    query, key, value = torch.randn(2, 3, 1100, width), torch.randn(2, 3, keys, width), torch.randn(2, 3, keys, width)
    expected = (query @ key.transpose(-1, -2) * 0.3).softmax(-1) @ value
    torch.testing.assert_close(chunked_attention(query, key, value, 0.3), expected, atol=TOLERANCE, rtol=0)


@needs_onednn
def test_attention_of_the_autoencoder_equals_diffusers() -> None:
    attn = Attention(
        32, heads=1, dim_head=32, norm_num_groups=8, residual_connection=True, bias=True, rescale_output_factor=2.0
    ).eval()
    x = random_image(2, 32, 12, 9)
    expected = attn(x)
    assert ChunkedVaeAttention.supports(attn)
    attn.set_processor(ChunkedVaeAttention())
    got = attn(x.contiguous())
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
    assert got.is_contiguous()  # what follows is less accurate in channels-last memory


@needs_onednn
def test_residual_block_is_accurate_in_channels_last_memory() -> None:
    """PyTorch's group norm is not, in that memory."""
    block = ResnetBlock2D(in_channels=16, out_channels=16, temb_channels=None, groups=8).eval()
    x = torch.randn(1, 16, 256, 256) + 10
    exact = copy.deepcopy(block).double()(x.double(), None)
    plain = (block(x, None) - exact).abs().quantile(0.9)
    got = optimized_copy(block)(x.contiguous(memory_format=torch.channels_last), None)
    assert (got - exact).abs().quantile(0.9) <= 2 * plain


def test_modules_are_not_replaced_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "can_pack", lambda _: False)
    assert type(optimized_copy(nn.Linear(3, 4))) is nn.Linear
