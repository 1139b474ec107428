"""Out-of-memory errors as ``ResourceError``, peak memory, and TF32 settings inside and after ``tf32_disabled``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cliper.devices import convert_out_of_memory, peak_memory, tf32_disabled
from cliper.errors import ResourceError


def settings() -> dict[str, Any]:
    """PyTorch's settings of TF32, the older and the newer ones."""
    backends = torch.backends
    return {
        "matmul": backends.cuda.matmul.fp32_precision,
        "cpu matmul": backends.mkldnn.matmul.fp32_precision,
        "convolution": backends.cudnn.conv.fp32_precision,
        "rnn": backends.cudnn.rnn.fp32_precision,
        "older matmul": backends.cuda.matmul.allow_tf32,
        "older cudnn": backends.cudnn.allow_tf32,
        "older float32": torch.get_float32_matmul_precision(),
    }


OFF = {
    **dict.fromkeys(("matmul", "cpu matmul", "convolution", "rnn"), "ieee"),
    **dict.fromkeys(("older matmul", "older cudnn"), False),
    "older float32": "highest",
}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Restore PyTorch's defaults after each test."""
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("convolutions", [True, False])
def test_tf32_is_off_inside_and_restored_afterwards(precision: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = convolutions
    before = settings()
    with tf32_disabled():
        assert settings() == OFF
        with tf32_disabled():
            assert settings() == OFF
        assert settings() == OFF
    assert settings() == before


def test_tf32_is_restored_after_an_exception() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    before = settings()
    with pytest.raises(KeyboardInterrupt), tf32_disabled():
        raise KeyboardInterrupt
    assert settings() == before
    assert before["older matmul"] is True


def test_tf32_is_off_despite_a_setting_for_all_operations() -> None:
    torch.backends.fp32_precision = "tf32"
    try:
        with tf32_disabled():
            assert {settings()[name] for name in ("matmul", "cpu matmul", "convolution", "rnn")} == {"ieee"}
    finally:
        torch.backends.fp32_precision = "none"


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory",
        "MPS backend out of memory (MPS allocated: 1.00 GB)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_memory_errors_of_gpu_libraries_are_resource_errors(message: str) -> None:
    with pytest.raises(ResourceError, match="segmenting: out of memory"), convert_out_of_memory():
        raise RuntimeError(message)


def test_other_runtime_errors_are_unchanged() -> None:
    with pytest.raises(RuntimeError, match="CUBLAS_STATUS_EXECUTION_FAILED"), convert_out_of_memory():
        raise RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED")


@pytest.mark.skipif(sys.platform != "linux", reason="where /proc/self/status is not read, it is what getrusage gives")
def test_peak_memory_is_not_that_of_the_parent() -> None:
    held = bytearray(2**30)
    held[::4096] = b"x" * len(held[::4096])
    assert peak_memory()["resident"] > 2**30
    code = "from cliper.devices import peak_memory; print(peak_memory()['resident'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2**20 < int(done.stdout) < 2**30
