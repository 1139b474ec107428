"""Exports of the tiny and of the bundled checkpoint, each made once, and runtimes that run their graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cliper.export import export_model

Run = Callable[[Mapping[str, Any]], list[np.ndarray]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "export_to" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.full)


@pytest.fixture(scope="session")
def export_to(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> Iterator[Callable[..., Path]]:
    """Export ``"tiny"`` or ``"mini"``, or return the same export again.

    Half a minute of an export of mini is tracing, which does not depend on target and precision, and is done once.
    """
    for library in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(library, reason="exports need the extra export; make .venv-export installs it")
    from cliper.export import graphs

    made: dict[Any, Path] = {}
    traced: dict[Any, bytes] = {}
    key: tuple[Any, ...] = ()

    def once(trace: Callable[..., Any]) -> Callable[..., Any]:
        def make(*arguments: Any) -> Any:
            import onnx

            name = (trace.__name__, *key)
            if name not in traced:
                traced[name] = trace(*arguments).SerializeToString()
            return onnx.load_from_string(traced[name])

        return make

    def export(model: str, target: str = "onnx", precision: str = "float32", **options: Any) -> Path:
        nonlocal key
        options = {name: value for name, value in options.items() if value is not None}
        key = (model, *sorted(options.items()))
        whole = (target, precision, *key)
        if whole not in made:
            made[whole] = tmp_path_factory.mktemp("exports") / "out"
            name = clip_folder if model == "tiny" else model
            export_model(made[whole], name, target=target, precision=precision, **options)
        return made[whole]

    with pytest.MonkeyPatch.context() as patch:
        for trace in (graphs.text_graph, graphs.image_graph):
            patch.setattr(graphs, trace.__name__, once(trace))
        yield export


def load_graph(folder: Path, name: str) -> Run:
    """A graph of an export in its runtime: named inputs to a list of outputs."""
    file = folder / f"{name}.onnx"
    if file.exists():
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, dict(inputs))
    import openvino

    # By default OpenVINO computes in bfloat16 where the processor has it.
    model = openvino.Core().compile_model(folder / f"{name}.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: [np.array(output) for output in model(dict(inputs)).values()]


@pytest.fixture(scope="session")
def load() -> Callable[[Path, str], Run]:
    """:func:`load_graph`, for tests."""
    return load_graph
