"""The diffusion refiner with kernels, with kernels turned off, and on a processor that supports few of them."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from cliper.kernels.switch import enabled_by_environment
from cliper.refiners import load_refiner
from cliper.settings import Settings
from recorded_operators import RecordOperators


@pytest.mark.parametrize("kind", ["sd2.1", "sd1.5"])
def test_refined_maps_are_equal_with_kernels_turned_off(
    kind: str, pipelines: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    image, maps = torch.rand(3, 40, 50, generator=generator), torch.rand(2, 3, 4, generator=generator)
    settings = Settings(refine_size=(64, 96))
    [expected] = load_refiner(str(pipelines[kind]), device="cpu").refine([image], [maps], settings)
    try:
        monkeypatch.setenv("CLIPER_KERNELS", "0")
        enabled_by_environment.cache_clear()
        plain = load_refiner(str(pipelines[kind]), device="cpu")
        modules = [part for net in (plain.unet, plain.vae) for part in net.modules()]
        with RecordOperators() as operators:
            [refined] = plain.refine([image], [maps], settings)
    finally:
        monkeypatch.undo()
        enabled_by_environment.cache_clear()
    assert {type(part) for part in modules if "Linear" in type(part).__name__} == {nn.Linear}
    assert not any(type(part).__module__.startswith("cliper.kernels") for part in modules)
    assert operators.namespaces == {"aten"}
    # Sums in another order; a value near the threshold moves its pixel by more, as in the tests against diffusers.
    torch.testing.assert_close(refined, expected, atol=1e-4, rtol=0)


AVX2_ONLY = """
import torch
from cliper.kernels.linear import PackedLinear, can_pack
from cliper.refiners import load_refiner
from cliper.settings import Settings
import sys
print(can_pack(torch.float32), can_pack(torch.bfloat16))
refiner = load_refiner(sys.argv[1], device="cpu", dtype=torch.bfloat16)
print(any(isinstance(part, PackedLinear) for part in refiner.unet.modules()))
print(refiner.refine([torch.rand(3, 40, 50)], [torch.rand(2, 3, 4)], Settings(refine_size=64))[0].isfinite().all())
"""


@pytest.mark.full
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="about x86 processors")
def test_layers_are_not_packed_on_a_processor_without_bfloat16(pipelines: dict[str, Path]) -> None:
    """oneDNN and PyTorch are limited to AVX2, where oneDNN refuses bfloat16."""
    done = subprocess.run(
        [sys.executable, "-c", AVX2_ONLY, str(pipelines["sd2.1"])],
        env=os.environ | {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    [can, replaced, finite] = done.stdout.splitlines()
    assert can.endswith(replaced)  # packed layers if and only if they work
    assert finite == "tensor(True)"
