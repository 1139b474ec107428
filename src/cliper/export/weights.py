"""ONNX models with weights in fewer bytes, written as files; what is computed stays float32."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cliper.errors import OutputError, quote_path, reraise

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["compress_weights", "save"]

# Operator -> the dimension of its weight (second input, for Gather the first) that int8 has a scale for each index of.
_SCALED = {"MatMul": 1, "Transpose": 0, "Gather": 0, "Conv": 0}

# Smaller weights stay float32: they are few, and scales would take as much.
_MIN_SIZE = 4096

# A message of Protocol Buffers, which an ONNX file is, holds at most 2 GiB; larger weights get a file of their own.
MAX_FILE_BYTES = 2**31 - 2**24


def save(model: ModelProto, path: Path, target: str, precision: str) -> None:
    """Write ``PATH.onnx``, or ``PATH.xml`` and ``PATH.bin`` for OpenVINO, with weights of the precision.

    Args:
        model: its weights are changed.
        path: without a suffix.
        target: ``"onnx"`` or ``"openvino"``.
        precision: as for :func:`compress_weights`.
    """
    import onnx

    compress_weights(model, precision)
    file, weights = path.with_suffix(".onnx"), path.with_suffix(".onnx.data")
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > MAX_FILE_BYTES
    onnx.save_model(model, file, save_as_external_data=large, location=weights.name if large else None)
    if target == "openvino":
        import openvino

        with reraise(RuntimeError, OutputError, f"cannot write {quote_path(path.parent)}", "choose another folder"):
            openvino.save_model(openvino.Core().read_model(file), path.with_suffix(".xml"), compress_to_fp16=False)
        file.unlink()
        weights.unlink(missing_ok=True)


def compress_weights(model: ModelProto, precision: str) -> None:
    """Store the weights of matrix products, convolutions and embeddings in fewer bytes, in place.

    ``"float16"`` stores them as float16 and converts them. ``"int8"`` stores integers from -127 to 127 and a factor for
    each output channel (of an embedding, each row): the largest absolute value, divided by 127. Runtimes convert
    weights when they load the model, or fuse the conversion with the product.

    Args:
        model: with weights in float32.
        precision: ``"float32"`` (nothing is changed), ``"float16"`` or ``"int8"``.
    """
    from onnx import numpy_helper

    if precision == "float32":
        return
    users: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    nodes = []
    for tensor in list(model.graph.initializer):
        kinds = {node.op_type for node in users.get(tensor.name, ())}
        if math.prod(tensor.dims) < _MIN_SIZE or len(tensor.dims) < 2 or len(kinds) != 1 or kinds - set(_SCALED):
            continue
        weight = numpy_helper.to_array(tensor)
        if weight.dtype == np.float32:
            stored, node = _stored(tensor.name, weight, precision, _SCALED[kinds.pop()])
            model.graph.initializer.remove(tensor)
            model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in stored.items())
            nodes.append(node)
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def _stored(name: str, weight: np.ndarray[Any, Any], precision: str, axis: int) -> tuple[dict[str, Any], NodeProto]:
    """What is stored for a weight, and the node that makes the weight of it."""
    from onnx import TensorProto, helper

    if precision == "float16":
        cast = helper.make_node("Cast", [f"{name}.float16"], [name], to=TensorProto.FLOAT)
        return {f"{name}.float16": weight.astype(np.float16)}, cast
    others = tuple(index for index in range(weight.ndim) if index != axis)
    scale = np.maximum(np.abs(weight).max(others), np.finfo(np.float32).tiny) / np.float32(127)
    by_channel = scale.reshape([-1 if index == axis else 1 for index in range(weight.ndim)])
    integers = np.rint(weight / by_channel).astype(np.int8)
    inputs = [f"{name}.int8", f"{name}.scale"]
    return dict(zip(inputs, (integers, scale), strict=True)), helper.make_node(
        "DequantizeLinear", inputs, [name], axis=axis
    )
