"""The implementations that ``benchmarks/compensation.py`` compares, each run in a process of its own.

Each function of ``WAYS`` loads what it needs and returns what was measured while it loaded, and a function that
refines once: ``-> (seconds by stage, refined maps [C, S, S], rows of the attention maps)``. The rows are every
seventh of each map, [n, T / 7, T], computed when they are asked for, so that neither time nor memory counts them.
"""

import contextlib
import functools
import gc
import importlib.util
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from random_pipeline import SEED, inputs

__all__ = ["CONVERT", "LAYERS", "STEP", "THRESHOLD", "WAYS", "convert", "reason_to_skip"]

LAYERS = ("up_blocks.3.attentions.1", "up_blocks.3.attentions.0")
STEP = 45
THRESHOLD = 0.1
CONVERT = "openvino_convert"  # writes what the OpenVINO rows read; not a row

Run = Callable[[], tuple[dict[str, float], Tensor, Callable[[], Tensor]]]
Way = tuple[dict[str, float], Run]


class Stages:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now


class Collect:
    """Textbook attention that keeps its softmaxed map."""

    def __init__(self, maps: list[Tensor]) -> None:
        self.maps = maps

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q = attn.head_to_batch_dim(attn.to_q(hidden_states))
        k, v = (attn.head_to_batch_dim(layer(context)) for layer in (attn.to_k, attn.to_v))
        probabilities = attn.get_attention_scores(q, k)
        self.maps.append(probabilities)
        return attn.to_out[0](attn.batch_to_head_dim(torch.bmm(probabilities, v)))


def published(folder: Path, quick: bool, limit: int) -> Way:
    """Diffusers' modules, the whole pipeline, and whole maps multiplied from left to right."""
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    image, maps, side = inputs(quick)

    @torch.no_grad()
    def run():
        stages = Stages()
        prompt = _encode_prompt(pipe.tokenizer, pipe.text_encoder)
        stages("prompt")
        latents = pipe.vae.encode(_pixels(image, side)).latent_dist.mean * pipe.vae.config.scaling_factor
        stages("vae")
        noisy, timestep = _add_noise(pipe.scheduler, latents)
        collected: list[Tensor] = []
        pipe.unet.set_attn_processor(Collect(collected))
        pipe.unet(noisy, timestep, encoder_hidden_states=prompt)
        stages("unet")
        softmaxed = torch.cat([collected[-4], collected[-6]])
        attention = softmaxed / (softmaxed.amax(-2, keepdim=True) + 1e-5)
        attention = torch.where(attention < THRESHOLD, 0, attention)
        attention = attention / (attention.sum(-1, keepdim=True) + 1e-5)
        chain = attention[0]
        for step in attention[1:]:
            chain = chain @ step
        grid = side // 8
        x = F.interpolate(maps[None], size=(grid, grid), mode="bilinear", align_corners=False)[0]
        refined = (chain @ x.flatten(1).T).T.reshape(-1, grid, grid)
        stages("chain")
        last, first = collected[-4], collected[-6]
        return stages.seconds, refined, lambda: torch.cat([last[:, ::7], first[:, ::7]])

    return {}, run


def cliper(folder: Path, quick: bool, limit: int, dtype: torch.dtype = torch.float32) -> Way:
    """``cliper.refiners``, of whichever revision is on the path."""
    from cliper.refiners import load_refiner
    from cliper.settings import Settings

    try:
        from cliper.refiners import Affinity
        from cliper.refiners.diffusion.unet_attention import capture_query_key
    except ImportError:  # an older revision, which ``--baseline`` may name
        from cliper.refiners.capture import capture_heads as capture_query_key

    refiner: Any = load_refiner(folder, device="cpu", dtype=dtype)
    encode = refiner.encode if hasattr(refiner, "compensate") else refiner.encode_latents
    image, maps, side = inputs(quick)
    settings = Settings(refine_threshold=THRESHOLD)  # a name that all revisions have

    @torch.inference_mode()
    def run():
        stages = Stages()
        latents = encode(image, (side, side))
        stages("vae")
        noisy, timestep = refiner.add_noise(latents, STEP, SEED)
        heads = capture_query_key(refiner.unet, noisy, timestep, refiner.prompt, LAYERS)[0]
        stages("unet")
        if hasattr(refiner, "compensate"):
            refined = refiner.compensate(maps, heads, latents.shape[-2:], settings)
        else:
            refined = refiner.apply(Affinity(tuple(heads), latents.shape[-2:]), maps, settings)
        stages("chain")
        return stages.seconds, refined, lambda: _rows(heads)

    return {}, run


def torch_compile(folder: Path, quick: bool, limit: int) -> Way:
    """Diffusers' modules, trimmed, compiled by inductor with frozen weights; the chain is cliper's.

    Raises:
        TimeoutError: it compiles for longer than ``limit`` seconds.
    """
    import torch._inductor.config as inductor

    inductor.freezing = True
    encoder, unet, scheduler = _trimmed(folder)
    image, _, side = inputs(quick)
    encode, attend = torch.compile(encoder), torch.compile(unet)
    start = time.perf_counter()
    with torch.no_grad(), _time_limit(limit):
        attend(_add_noise(scheduler, encode(_pixels(image, side)))[0])
    compiled = {"compile_seconds": round(time.perf_counter() - start, 2)}
    return compiled, _library_run(encode, attend, scheduler, unet.scale, quick)


def openvino(folder: Path, quick: bool, limit: int, precision: str = "f32") -> Way:
    """The trimmed modules that :func:`convert` wrote, in OpenVINO; the chain is cliper's."""
    import openvino as ov

    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = ov.Core()
    start = time.perf_counter()
    models = [core.compile_model(core.read_model(folder / f"{part}.xml"), "CPU", settings) for part in ("vae", "unet")]
    compiled = {"compile_seconds": round(time.perf_counter() - start, 2)}
    encode, attend = (functools.partial(_call_openvino, model) for model in models)
    scale = float((folder / "scale.txt").read_text())
    return compiled, _library_run(lambda x: encode(x)[0], attend, _scheduler(folder), scale, quick)


def float64(folder: Path, quick: bool, limit: int) -> Way:
    """The reference: diffusers' modules in float64, each UNet layer widened only while it runs."""
    encoder, unet, scheduler = _trimmed(folder, torch.float64)
    encoder.double()
    for layer in unet.modules():
        if not list(layer.children()):
            layer.register_forward_pre_hook(lambda layer, _: layer.double() and None)
            layer.register_forward_hook(lambda layer, *_: layer.float() and None)
    return {}, _library_run(encoder, unet, scheduler, unet.scale, quick, _chain_float64, torch.float64)


WAYS: dict[str, Callable[[Path, bool, int], Way]] = {
    "float64": float64,
    "published": published,
    "ours": cliper,
    "baseline": cliper,
    "bfloat16": functools.partial(cliper, dtype=torch.bfloat16),
    "torch_compile": torch_compile,
    "openvino": openvino,
    "openvino_bfloat16": functools.partial(openvino, precision="bf16"),
}


def convert(folder: Path, quick: bool) -> dict[str, float]:
    """Write the trimmed VAE encoder and UNet beside the pipeline, in OpenVINO's format, float32, static shapes."""
    import openvino as ov

    encoder, unet, _ = _trimmed(folder)
    side = inputs(quick)[2]
    start = time.perf_counter()
    for part, module, shape in (("vae", encoder, [1, 3, side, side]), ("unet", unet, [1, 4, side // 8, side // 8])):
        with torch.no_grad():
            model = ov.convert_model(module, example_input=torch.zeros(shape), input=[shape])
        ov.save_model(model, folder / f"{part}.xml", compress_to_fp16=False)
    (folder / "scale.txt").write_text(str(unet.scale))
    return {"convert_seconds": round(time.perf_counter() - start, 2)}


def reason_to_skip(way: str) -> str | None:
    """Why this machine cannot run a way, or None."""
    if way in ("openvino", "openvino_bfloat16") and importlib.util.find_spec("openvino") is None:
        return "openvino is not installed"
    flags = Path("/proc/cpuinfo").read_text()
    if "bfloat16" in way and not any(flag in flags for flag in ("amx_bf16", "avx512_bf16")):
        return "the processor does not multiply in bfloat16"
    return None


class _Encoder(nn.Module):
    """Pixels [1, 3, S, S] -> latents [1, 4, S / 8, S / 8]."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder, self.quant_conv, self.factor = vae.encoder, vae.quant_conv, vae.config.scaling_factor

    def forward(self, pixels: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(pixels)).chunk(2, dim=1)[0] * self.factor


class _TrimmedUNet(nn.Module):
    """Latents [1, 4, h, w] -> queries and keys [H, T, d] of ``LAYERS``, in their order; nothing after them runs."""

    def __init__(self, unet: Any, prompt: Tensor, timestep: Tensor) -> None:
        super().__init__()
        self.found: list[Tensor] = []
        self.unet = unet
        self.register_buffer("prompt", prompt)
        self.register_buffer("timestep", timestep)
        block = unet.up_blocks[3]
        inner, last = block.attentions[0].transformer_blocks[0].attn1, block.attentions[1]
        self.scale = inner.scale
        inner.set_processor(_Record(self.found))
        block.resnets, block.attentions = block.resnets[:2], nn.ModuleList([block.attentions[0], _Last(last, self)])
        unet.conv_norm_out, unet.conv_out = None, nn.Identity()

    def forward(self, latents: Tensor) -> tuple[Tensor, ...]:
        self.found.clear()
        self.unet(latents, self.timestep, self.prompt, return_dict=False)
        first, last = self.found[:2], self.found[2:]
        return (*last, *first)


class _Record:
    """PyTorch's attention; queries and keys are kept."""

    def __init__(self, found: list[Tensor]) -> None:
        self.found = found

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        query, key, value = (
            layer(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        self.found.extend((query[0], key[0]))
        mixed = F.scaled_dot_product_attention(query, key, value, scale=attn.scale)
        return attn.to_out[0](mixed.transpose(1, 2).flatten(2))


class _Last(nn.Module):
    """The last wanted transformer, up to its queries and keys."""

    def __init__(self, transformer: Any, owner: _TrimmedUNet) -> None:
        super().__init__()
        block = transformer.transformer_blocks[0]
        self.norm, self.proj_in, self.norm1 = transformer.norm, transformer.proj_in, block.norm1
        self.to_q, self.to_k, self.heads = block.attn1.to_q, block.attn1.to_k, block.attn1.heads
        self.found = owner.found

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor]:
        x = self.norm(hidden_states)
        if isinstance(self.proj_in, nn.Linear):
            x = self.proj_in(x.flatten(2).transpose(1, 2))
        else:
            x = self.proj_in(x).flatten(2).transpose(1, 2)
        x = self.norm1(x)
        self.found.extend(
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)[0] for layer in (self.to_q, self.to_k)
        )
        return (hidden_states,)


def _trimmed(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[_Encoder, _TrimmedUNet, Any]:
    """VAE encoder and UNet as far as they are needed, and the scheduler; ``dtype`` is the prompt's."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    with torch.no_grad():
        prompt = _encode_prompt(tokenizer, CLIPTextModel.from_pretrained(folder / "text_encoder").to(dtype))
    encoder = _Encoder(AutoencoderKL.from_pretrained(folder / "vae"))
    scheduler = _scheduler(folder)
    unet = _TrimmedUNet(UNet2DConditionModel.from_pretrained(folder / "unet"), prompt, scheduler.timesteps[STEP])
    gc.collect()
    return encoder.eval(), unet.eval(), scheduler


def _library_run(encode, attend, scheduler, scale, quick, chain=None, dtype=torch.float32) -> Run:
    """-> a function that runs a compiled encoder and UNet, and then the chain."""
    image, maps, side = inputs(quick)

    @torch.no_grad()
    def run():
        stages = Stages()
        latents = encode(_pixels(image, side).to(dtype))
        stages("vae")
        found = attend(_add_noise(scheduler, latents)[0])
        heads = [(found[i], found[i + 1], scale) for i in (0, 2)]
        stages("unet")
        refined = (chain or _chain)(maps, heads)
        stages("chain")
        return stages.seconds, refined, lambda: _rows(heads)

    return run


def _chain(maps: Tensor, heads: list[tuple[Tensor, Tensor, float]]) -> Tensor:
    from cliper.ops import compensation

    return compensation.compensate_query_key(maps, [compensation.QueryKey(*layer) for layer in heads], THRESHOLD)


def _chain_float64(maps: Tensor, heads: list[tuple[Tensor, Tensor, float]]) -> Tensor:
    side = round(heads[0][0].shape[1] ** 0.5)
    x = F.interpolate(maps[None].double(), size=(side, side), mode="bilinear", align_corners=False)[0].flatten(1).T
    for query, key, scale in reversed(heads):
        for q, k in zip(reversed(query), reversed(key), strict=True):
            attention = (q @ k.T * scale).softmax(-1)
            attention = attention / (attention.amax(-2, keepdim=True) + 1e-5)
            attention = torch.where(attention < THRESHOLD, 0, attention)
            x = attention / (attention.sum(-1, keepdim=True) + 1e-5) @ x
    return x.T.reshape(-1, side, side)


def _rows(heads: Any) -> Tensor:
    """Every seventh row of each attention map, softmaxed in the dtype of the queries, at least float32."""
    rows = []
    for query, key, scale in heads:
        for q, k in zip(query, key, strict=True):
            wide = torch.promote_types(q.dtype, torch.float32)
            rows.append((q[::7].to(wide) @ k.to(wide).T * scale).softmax(-1))
    return torch.stack(rows)


def _call_openvino(model: Any, x: Tensor) -> list[Tensor]:
    result = model(x.numpy())
    return [torch.from_numpy(result[i]) for i in range(len(model.outputs))]


def _encode_prompt(tokenizer: Any, text_encoder: Any) -> Tensor:
    return text_encoder(tokenizer("", padding="max_length", max_length=77, return_tensors="pt").input_ids)[0]


def _pixels(image: Tensor, side: int) -> Tensor:
    return F.interpolate(image[None], size=(side, side)) * 2 - 1


def _scheduler(folder: Path) -> Any:
    from diffusers import PNDMScheduler

    scheduler = PNDMScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(50)
    return scheduler


def _add_noise(scheduler: Any, latents: Tensor) -> tuple[Tensor, Tensor]:
    """The latents with the seed's noise, and the time."""
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(SEED)).to(latents.dtype)
    scheduler.set_timesteps(50)
    timestep = scheduler.timesteps[STEP]
    return scheduler.add_noise(latents, noise, timestep[None]), timestep


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Raises ``TimeoutError`` in what runs for longer."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"compiling took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
