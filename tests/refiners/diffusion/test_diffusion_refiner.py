"""Stable Diffusion as a refiner, beside a plain run of the whole pipeline."""

from pathlib import Path

import pytest
import torch
from tiny_models import DEFAULT_LAYERS, build_pipeline
from torch import Tensor

from cliper.errors import RefinerError, ResourceError, SettingsError, ShapeError
from cliper.refiners import load_refiner
from cliper.refiners.diffusion import DiffusionRefiner
from cliper.refiners.diffusion.unet_attention import capture_query_key, layer_names, tokens_grid
from cliper.settings import Settings

# Two orders of summation in float32 differ by about 1e-6 in queries and keys, and by less in what the chain makes of
# them.
TOLERANCE = 1e-4
SETTINGS = Settings(map_threshold=0.1, refine_size=128)
LAST_PROCESSOR = "up_blocks.3.attentions.2.transformer_blocks.0.attn2.processor"


def test_result_does_not_depend_on_the_batch(
    refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor]
) -> None:
    together = refiner.refine(images, maps, SETTINGS, 7)
    for i in (1, 0):
        assert torch.equal(refiner.refine([images[i]], [maps[i]], SETTINGS, 7)[0], together[i])
    # Products of another shape are summed in another order. Compared without a threshold: a value within rounding of it
    # may fall on either side. (With two threads one of 262,144 values of these maps, 3e-6 below the threshold, becomes
    # 5e-6 above it; its row keeps 4 values, and the result moves by 7e-4.)
    uncut = SETTINGS.replace(refine_threshold=0)
    expected = refiner.refine(images, maps, uncut, 7)
    refiner.batch_size = 2  # as on a GPU, where images go through the networks together
    for one, other in zip(refiner.refine(images, maps, uncut, 7), expected, strict=True):
        torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=0)


def test_noise_depends_on_the_seed_only(refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor]) -> None:
    torch.manual_seed(1)
    first = refiner.refine(images[:1], maps[:1], SETTINGS, 3)[0]
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(refiner.refine(images[:1], maps[:1], SETTINGS, 3)[0], first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(refiner.refine(images[:1], maps[:1], SETTINGS, 4)[0], first)


def test_results_are_plain_tensors(refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor]) -> None:
    """They may be changed in place and take part in a backward pass, as those of inference mode may not."""
    [refined] = refiner.refine(images[:1], maps[:1], SETTINGS)
    refined /= refined.amax()
    weight = torch.ones(1, requires_grad=True)
    (weight * refined).sum().backward()
    assert torch.allclose(weight.grad, refined.sum())


def test_arguments_are_not_changed(refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor]) -> None:
    before = [t.clone() for t in (*images, *maps)]
    refiner.refine(images, maps, SETTINGS)
    assert all(torch.equal(a, b) for a, b in zip((*images, *maps), before, strict=True))


def test_refine_threshold_replaces_map_threshold(
    pipelines: dict[str, Path], refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor]
) -> None:
    ours = refiner.refine(images[:1], maps[:1], SETTINGS.replace(map_threshold=0.9, refine_threshold=0.1))[0]
    assert torch.equal(ours, refiner.refine(images[:1], maps[:1], SETTINGS)[0])


@pytest.mark.parametrize("size", [(256, 384), (512, 256), (1024, 256), (136, 200), (256, 256)])
def test_other_sizes(
    pipelines: dict[str, Path], refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor], size: tuple
) -> None:
    refined = refiner.refine(images[:1], maps[:1], SETTINGS.replace(refine_size=size))[0]
    assert refined.shape == (3, size[0] // 8, size[1] // 8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tmp_path: Path, images: list[Tensor], maps: list[Tensor], dtype: torch.dtype) -> None:
    folder = build_pipeline(tmp_path / "pipeline", "sd2.1", sharpness=3)
    refiner, half = (load_refiner(folder, device="cpu", dtype=d) for d in (torch.float32, dtype))
    assert refiner is not None
    assert half is not None
    assert half.dtype == dtype
    how = SETTINGS.replace(refine_mode="mean")
    expected = refiner.refine(images[:1], maps[:1], how)[0]
    got = half.refine(images[:1], maps[:1], how)[0]
    assert got.dtype == torch.float32
    # The networks round to 8 or 11 bits at each of about 60 layers: 3e-2 or 4e-3 in scores of about 2, hence about as
    # much, relatively, in the maps; what is near the threshold falls on its other side. The results, about 0.5 and
    # averages over about 80 pixels, differ by less.
    tolerance = 3e-2 if dtype == torch.bfloat16 else 5e-3
    assert expected.amax() - expected.amin() > 3 * tolerance
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=0)


def test_unet_stops_after_the_last_layer(refiner: DiffusionRefiner, images: list[Tensor]) -> None:
    called: list[str] = []
    for name, module in refiner.unet.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    latents = refiner.encode_latents(images[0], (64, 64))
    noisy, timestep = refiner.add_noise(latents, 45, 0)
    capture_query_key(refiner.unet, noisy, timestep, refiner.prompt, None)
    block = "up_blocks.3.attentions.1.transformer_blocks.0"
    assert f"{block}.attn1.to_q" in called
    assert f"{block}.attn1.to_k" in called
    never = (
        f"{block}.attn1.to_v",
        f"{block}.attn2",
        f"{block}.ff",
        "up_blocks.3.resnets.2",
        "conv_norm_out",
        "conv_out",
    )
    assert not [name for name in called if name.startswith(never)]
    assert sum(name.endswith("attn1.to_q") for name in called) == 15  # of 16


def test_unet_stops_after_a_layer_of_the_first_block(refiner: DiffusionRefiner, images: list[Tensor]) -> None:
    called: list[str] = []
    for name, module in refiner.unet.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    noisy, timestep = refiner.add_noise(refiner.encode_latents(images[0], (64, 64)), 45, 0)
    capture_query_key(refiner.unet, noisy, timestep, refiner.prompt, ("down_blocks.0.attentions.0",))
    assert not [name for name in called if name.startswith(("down_blocks.1", "mid_block", "up_blocks"))]


def test_attention_processors_are_restored(
    refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dict(refiner.unet.attn_processors)
    refiner.refine(images, maps, SETTINGS)
    assert refiner.unet.attn_processors == before

    def fail(*_: object) -> None:
        raise ValueError("from inside")

    with monkeypatch.context() as patch:  # an error while they are being set, at the last of them
        last = refiner.unet.up_blocks[3].attentions[2].transformer_blocks[0].attn2
        patch.setattr(last, "set_processor", lambda given: fail() if given is not before[LAST_PROCESSOR] else None)
        with pytest.raises(ValueError, match="from inside"):
            refiner.refine(images, maps, SETTINGS)
    assert refiner.unet.attn_processors == before
    refiner.unet.mid_block.register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="from inside"):
        refiner.refine(images, maps, SETTINGS)
    assert refiner.unet.attn_processors == before


def test_layer_names(refiner: DiffusionRefiner) -> None:
    assert len(layer_names(refiner.unet)) == 16
    assert {*DEFAULT_LAYERS, "mid_block.attentions.0", "down_blocks.2.attentions.1"} <= {*layer_names(refiner.unet)}


def test_unknown_layer(refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor]) -> None:
    with pytest.raises(RefinerError, match=r"did you mean 'up_blocks.3.attentions.1'.*it has: down_blocks.0.atten"):
        refiner.refine(images, maps, SETTINGS.replace(refine_layers=("up_block.3.attentions.1",)))
    with pytest.raises(RefinerError, match="each layer once"):
        refiner.refine(images, maps, SETTINGS.replace(refine_layers=(DEFAULT_LAYERS[0],) * 2))


def test_layer_with_normalised_keys_is_refused(
    refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor]
) -> None:
    module = refiner.unet.get_submodule(f"{DEFAULT_LAYERS[0]}.transformer_blocks.0.attn1")
    module.norm_k = torch.nn.LayerNorm(module.to_k.out_features)
    with pytest.raises(RefinerError, match=f"{DEFAULT_LAYERS[0]} normalises its queries and keys"):
        refiner.refine(images, maps, SETTINGS)


def test_invalid_arguments(
    refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="multiples of 8, got 250x250; nearest is 248x248"):
        refiner.refine(images, maps, SETTINGS.replace(refine_size=250))
    with monkeypatch.context() as patch:
        patch.setattr(refiner, "encode_latents", lambda *_: pytest.fail("the networks ran"))
        with pytest.raises(SettingsError, match="refine_map_index: there are 4 attention maps, 0 to 3; got 99"):
            refiner.refine(images, maps, SETTINGS.replace(refine_mode="selected", refine_map_index=99))
        for seed in (2**64, -(2**63) - 1, 1.5):
            with pytest.raises(SettingsError, match=f"seed: expected a whole number from .*, got {seed}"):
                refiner.refine(images, maps, SETTINGS, seed)
    for seed in (2**64 - 1, -(2**63)):
        assert refiner.refine(images[:1], maps[:1], SETTINGS, seed)[0].isfinite().all()
    with pytest.raises(ShapeError, match="2 images, 1 stacks"):
        refiner.refine(images, maps[:1], SETTINGS)
    with pytest.raises(ShapeError, match=r"\[3, H, W\]"):
        refiner.refine([torch.rand(1, 8, 8)], maps[:1], SETTINGS)
    with pytest.raises(ShapeError, match=r"\[C, h, w\]"):
        refiner.refine(images[:1], [torch.rand(3, 3)], SETTINGS)
    with pytest.raises(ShapeError, match="finite"):
        refiner.refine(images[:1], [torch.full((1, 3, 3), torch.nan)], SETTINGS)
    assert refiner.refine([], [], SETTINGS) == []


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_out_of_memory(refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor], error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    refiner.vae.encoder.register_forward_pre_hook(fail)
    with pytest.raises(ResourceError, match=r"at 128x128: out of memory; lower refine_size"):
        refiner.refine(images, maps, SETTINGS)


def test_nan_weights(refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor]) -> None:
    refiner.unet.mid_block.resnets[0].norm1.weight.data[0] = torch.nan
    with pytest.raises(RefinerError, match="NaN or infinity: the weights are broken"):
        refiner.refine(images, maps, SETTINGS)


def test_tokens_grid() -> None:
    assert tokens_grid((64, 64), 4096) == (64, 64)
    assert tokens_grid((17, 25), 9 * 13) == (9, 13)
