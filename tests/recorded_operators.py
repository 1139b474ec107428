"""Which of PyTorch's operators run."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class RecordOperators(TorchDispatchMode):
    """Collects the namespaces of the operators that run inside the ``with`` block, in its thread."""

    def __init__(self) -> None:
        super().__init__()
        self.namespaces: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.namespaces.add(func.namespace)
        return func(*args, **(kwargs or {}))
