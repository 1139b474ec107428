"""Pipelines and schedulers that are not supported, and noise of those that are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cliper.errors import CheckpointError, RefinerError
from cliper.refiners import load_refiner
from cliper.refiners.diffusion.scheduler import add_noise, load_scheduler
from cliper.settings import Settings

# What diffusers' schedulers do with today's numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

SETTINGS = Settings(map_threshold=0.1, refine_size=64, refine_mode="mean")
SCHEDULER = "scheduler/scheduler_config.json"


@pytest.fixture
def pipeline(pipelines: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a pipeline, for tests that change it."""
    return Path(shutil.copytree(pipelines["sd2.1"], tmp_path / "pipeline"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("model_index.json", {"_class_name": "FluxPipeline"}, r"model_index.json: .*StableDiffusion.*got FluxPipeline"),
        ("unet/config.json", {"in_channels": 9}, "takes 9 channels and an autoencoder that gives 4"),
        ("vae/config.json", {"latent_channels": 16}, "takes 4 channels and an autoencoder that gives 16"),
        ("unet/config.json", {"cross_attention_dim": 16}, "prompts of width 24, .* got one for 16"),
        ("unet/config.json", {"cross_attention_dim": [24, 24, 24, 16]}, r"width 24, .* got one for \[24, 24, 24, 16\]"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "a UNet with addition_embed_type 'text_time'"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "a UNet with class_embed_type 'timestep'"),
        ("unet/config.json", {"num_class_embeds": 10}, "a UNet with num_class_embeds 10"),
        ("unet/config.json", {"encoder_hid_dim_type": "text_proj"}, "a UNet with encoder_hid_dim_type 'text_proj'"),
        ("unet/config.json", {"norm_num_groups": 0}, "not the configuration of its UNet2DConditionModel"),
        ("vae/config.json", {"scaling_factor": None}, "scaling_factor: expected a number, got None"),
        ("vae/config.json", {"scaling_factor": "1"}, "scaling_factor: expected a number, got '1'"),
        ("vae/config.json", {"shift_factor": [1]}, r"shift_factor: expected a number, got \[1\]"),
        (SCHEDULER, {"beta_schedule": "nope"}, "PNDMScheduler cannot add noise .* nope is not implemented"),
        (SCHEDULER, {"num_train_timesteps": "x"}, "PNDMScheduler cannot add noise"),
        (SCHEDULER, {"_class_name": "UNet2DConditionModel"}, "adds noise, such as PNDM.*, got 'UNet2DConditionModel'"),
        (SCHEDULER, {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "a scheduler that adds noise"),
        (SCHEDULER, {"_class_name": "EDMEulerScheduler"}, "times from 0 to 999, .* which has t = -0.0"),
        (SCHEDULER, {"_class_name": "CMStochasticIterativeScheduler"}, "times from 0 to 999, .* which has t = 1095"),
        (SCHEDULER, {"_class_name": "RePaintScheduler"}, "RePaintScheduler cannot add noise"),
    ],
)
def test_unsupported_pipeline_is_refused_in_one_line(
    pipeline: Path, file: str, values: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cliper.refiners.diffusion.loading._fill", lambda model, folder, part, *_: no_unet(part))

    def no_unet(part: str) -> None:
        assert part != "unet", "weights were read before the configuration was checked"

    change(pipeline / file, **values)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_refiner(pipeline, device="cpu")
    assert "\n" not in str(caught.value)


def test_missing_configuration_values_have_the_defaults_of_diffusers(
    pipeline: Path, images: list[Tensor], maps: list[Tensor]
) -> None:
    for file, names in (
        ("model_index.json", ("_class_name",)),
        ("vae/config.json", ("latent_channels", "shift_factor")),
    ):
        path = pipeline / file
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in names}))
    assert load_refiner(pipeline, device="cpu").refine(images[:1], maps[:1], SETTINGS)[0].isfinite().all()


@pytest.mark.parametrize(
    "name",
    [
        "DDIMScheduler",
        "DPMSolverMultistepScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "LMSDiscreteScheduler",
        "PNDMScheduler",
    ],
)
def test_noise_does_not_depend_on_earlier_calls(pipeline: Path, name: str) -> None:
    """Some schedulers count their steps."""
    change(pipeline / SCHEDULER, _class_name=name)
    latents, noise = torch.rand(2, 4, 3, 3), torch.rand(2, 4, 3, 3)
    fresh = [add_noise(load_scheduler(pipeline), latents, noise, step) for step in (45, 30)]
    used = load_scheduler(pipeline)
    for step, expected in ((45, fresh[0]), (30, fresh[1]), (45, fresh[0])):
        got = add_noise(used, latents, noise, step)
        assert torch.equal(got[0], expected[0])
        assert got[1] == expected[1]
    assert not torch.equal(fresh[0][0], fresh[1][0])
    assert torch.equal(add_noise(used, latents[:1], noise[:1], 30)[0], fresh[1][0][:1])  # whatever the batch


def test_result_does_not_depend_on_earlier_steps(pipeline: Path, images: list[Tensor], maps: list[Tensor]) -> None:
    change(pipeline / SCHEDULER, _class_name="EulerDiscreteScheduler")

    def step_30(refiner: Any) -> Tensor:
        return refiner.refine(images[:1], maps[:1], SETTINGS.replace(refine_step=30))[0]

    expected = step_30(load_refiner(pipeline, device="cpu"))
    used = load_refiner(pipeline, device="cpu")
    assert not torch.equal(used.refine(images[:1], maps[:1], SETTINGS)[0], expected)
    assert torch.equal(step_30(used), expected)


def test_step_out_of_range(pipeline: Path) -> None:
    latents = torch.rand(1, 4, 2, 2)
    with pytest.raises(RefinerError, match="refine_step: PNDMScheduler has steps 0 to 50, got 51"):
        add_noise(load_scheduler(pipeline), latents, latents, 51)
