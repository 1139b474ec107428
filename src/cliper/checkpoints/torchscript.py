"""Read the tensors of a TorchScript archive without running its code.

Such an archive is a zip file with uncompressed entries: the program (``code/``), a pickle of the module (``data.pkl``),
and one entry for each storage (``data/0``, ...). Only the last two are read, and the pickle may only name tensors and
modules: it is refused at any other name, before that is imported.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

__all__ = ["is_torchscript", "iter_torchscript"]

_MAX_PICKLE_BYTES = 2_000_000  # OpenAI's have 0.1 MB
_MAX_DEPTH = 20  # of modules
# Names of PyTorch's storage classes -> dtypes of their elements.
_DTYPES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return _root(archive) is not None


def iter_torchscript(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of an archive's module and its parts by their dotted names, memory-mapped.

    Raises:
        ValueError, pickle.UnpicklingError, zipfile.BadZipFile: the archive is damaged or holds something else.
    """
    import torch

    with path.open("rb") as file:
        # A private copy: writing to a tensor does not change the file.
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    with zipfile.ZipFile(path) as archive:
        root = _root(archive)
        info = archive.getinfo(f"{root}/data.pkl")
        if info.file_size > _MAX_PICKLE_BYTES:
            raise ValueError(f"expected data.pkl of at most {_MAX_PICKLE_BYTES:,} bytes, got {info.file_size:,}")
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError("expected an uncompressed data.pkl")
        data = archive.read(info)
        # The table of objects that are used again grows to the largest index at once: to gigabytes, for a few bytes.
        if any(kind.name.endswith("PUT") and int(arg or 0) > len(data) for kind, arg, _ in pickletools.genops(data)):
            raise ValueError("expected a pickle with fewer objects than bytes")
        module = _Unpickler(io.BytesIO(data)).load()
        for name, view in _views(module):
            dtype = getattr(torch, view.dtype)
            start, count = _extent(archive.getinfo(f"{root}/data/{view.key}"), memory, dtype.itemsize)
            last = view.offset + sum((side - 1) * stride for side, stride in zip(view.size, view.stride, strict=True))
            if not 0 <= view.offset <= last < count or math.prod(view.size) > count:
                raise ValueError(f"{name}: expected a tensor inside its storage, got {view}")
            storage = torch.frombuffer(memory, dtype=dtype, count=count, offset=start)
            yield name, storage.as_strided(view.size, view.stride, view.offset)


class _View(NamedTuple):
    """A tensor: the part of a storage that it shows."""

    dtype: str
    key: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Module:
    """Stands in for every class of the archive's program."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _view(storage: tuple[str, str], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> _View:
    numbers = (offset, *size, *stride)
    if not all(type(number) is int and number >= 0 for number in numbers) or 0 in size:
        raise ValueError(f"expected a tensor with sides above 0, got offset, sides and strides {numbers}")
    return _View(*storage, offset, size, stride)


class _Unpickler(pickle.Unpickler):
    """Makes a :class:`_View` of each tensor and a :class:`_Module` of each module."""

    def find_class(self, module: str, name: str) -> Any:
        # New objects, because a pickle may set attributes of what it names.
        if module == "__torch__" or module.startswith("__torch__."):
            return type("Module", (_Module,), {})
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): lambda *values: _view(*values),
            ("collections", "OrderedDict"): lambda: None,  # the hooks of a tensor: there are none
            # The list itself: copies would let a small pickle fill the memory.
            **{
                ("torch.jit._pickle", f"build_{k}list"): lambda value: value
                for k in ("int", "double", "bool", "tensor")
            },
            ("torch.jit._pickle", "restore_type_tag"): lambda value, _type: value,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"expected tensors and modules, got {module}.{name}")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        kind, dtype, key, *_ = pid
        if kind != "storage" or dtype not in _DTYPES.values() or not isinstance(key, str):
            raise pickle.UnpicklingError(f"expected a storage, got {pid!r:.80}")
        return dtype, key


def _root(archive: zipfile.ZipFile) -> str | None:
    """The folder that all entries are in; None if this is no TorchScript archive."""
    names = archive.namelist()
    roots = [name.removesuffix("/constants.pkl") for name in names if name.endswith("/constants.pkl")]
    return next((root for root in roots if f"{root}/data.pkl" in names), None)


def _views(module: Any) -> Iterator[tuple[str, _View]]:
    """The tensors in a module's attributes, of each part once."""
    waiting: list[tuple[str, Any]] = [("", module)]
    seen: set[int] = set()
    while waiting:
        prefix, part = waiting.pop()
        state = getattr(part, "state", None)
        if not isinstance(part, _Module) or not isinstance(state, dict) or id(part) in seen:
            continue
        seen.add(id(part))
        if prefix.count(".") > _MAX_DEPTH:
            raise ValueError(f"expected modules inside each other at most {_MAX_DEPTH} deep")
        for name, value in state.items():
            if isinstance(value, _View):
                yield f"{prefix}{name}", value
            else:
                waiting.append((f"{prefix}{name}.", value))


def _extent(info: zipfile.ZipInfo, memory: mmap.mmap, itemsize: int) -> tuple[int, int]:
    """Start of an entry's data in the file, and the number of its elements."""
    # The local header: 30 bytes, then name and extra field, whose lengths are at 26 and 28.
    lengths = struct.unpack("<HH", memory[info.header_offset + 26 : info.header_offset + 30])
    start = info.header_offset + 30 + sum(lengths)
    if info.compress_type != zipfile.ZIP_STORED or start + info.file_size > len(memory):
        raise ValueError(f"{info.filename}: expected an uncompressed entry inside the file")
    return start, info.file_size // itemsize
