"""Where tests of code for a GPU run: a pretended one, and the real one if there is any.

The pretended one has tensors on `cuda:0` whose values the CPU computes, so the code also runs where there is no GPU.

As on a GPU, tensors of two devices do not mix, numpy reads host memory only, and a copy to host memory that does not
block has not arrived until something waits for it: until then, the target holds other numbers. Nothing is compiled.
It replaces parts of torch, so it lives in a process of its own; so does the real one, since all other tests are of the
CPU.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

T = TypeVar("T")
_DEVICE = torch.device("privateuseone", 0)  # what C++ takes the device for
_CUDA = torch.device("cuda", 0)
_NOT_ARRIVED = -77
_LIBRARY = torch.library.Library("_", "IMPL")
_coming: list[Callable[[], object]] = []  # copies to host memory that do not block


def wait() -> None:
    """Let all copies arrive."""
    while _coming:
        _coming.pop(0)()


class OnGPU(Tensor):
    """A tensor of the pretended GPU; `values` are on the CPU."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> OnGPU:
        layout = {"strides": values.stride(), "storage_offset": values.storage_offset(), "dtype": values.dtype}
        made = Tensor._make_wrapper_subclass(cls, values.size(), **layout, device=_DEVICE)
        made.values = values
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.values.__reduce_ex__(protocol)  # checkpoints are read on the CPU

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return _computed(op, args, kwargs or {})


def _computed(op: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    name = op._schema.name.removeprefix("aten::")
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    if name == "copy_":
        return _copied(args[0], args[1], blocks=not (kwargs.get("non_blocking") or args[2:3] == (True,)))
    if name in ("_to_copy", "to") and kwargs.get("device") is not None:
        moved = op(_on_cpu(args[0]), *args[1:], **{**kwargs, "device": "cpu"})
        if kwargs["device"] == _DEVICE:
            return OnGPU(moved)
        return _copied(torch.empty_like(moved), OnGPU(moved), blocks=not kwargs.get("non_blocking"))
    if name == "_local_scalar_dense":
        wait()
    elif any(not isinstance(x, OnGPU) and x.ndim for x in tensors) and not name.startswith("index"):
        raise RuntimeError(f"{op} got tensors on cuda:0 and on the CPU: {[tuple(x.shape) for x in tensors]}")
    if name == "_scaled_mm":
        return OnGPU(_scaled_product(*map(_on_cpu, args)))
    found = op(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs))
    changed = [x for x in tensors if op._schema.is_mutable and _on_cpu(x) is found]
    return changed[0] if changed else tree_map(lambda x: OnGPU(x) if isinstance(x, Tensor) else x, found)


def _on_cpu(x: Any) -> Any:
    if isinstance(x, torch.device):
        return torch.device("cpu")
    return x.values if isinstance(x, OnGPU) else x


def _copied(target: Tensor, source: Tensor, blocks: bool) -> Tensor:
    values = _on_cpu(source)
    if isinstance(target, OnGPU) or not isinstance(source, OnGPU):
        _on_cpu(target).copy_(values)
    elif blocks:
        wait()
        target.copy_(values)
    else:
        target.fill_(_NOT_ARRIVED)
        values = values.clone()
        _coming.append(lambda: target.copy_(values))
    return target


def _scaled_product(
    a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, bias: None, of_result: None, dtype: torch.dtype, fast: bool
) -> Tensor:
    """A product in float8 with a scale per row and column, if it is as cuBLAS asks for."""
    assert a.dtype == b.dtype == torch.float8_e4m3fn
    assert a.is_contiguous() and b.T.is_contiguous()
    assert a.shape[1] % 16 == b.shape[1] % 16 == 0
    assert scale_a.shape == (len(a), 1) and scale_b.shape == (1, b.shape[1])
    assert scale_a.dtype == scale_b.dtype == torch.float32 and scale_a.is_contiguous() and scale_b.is_contiguous()
    return (a.float() @ b.float() * scale_a * scale_b).to(dtype)


class _Mode(TorchFunctionMode):
    """Python sees `cuda:0` where C++ sees `_DEVICE`."""

    def __torch_function__(self, f: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = {name: _named(value) for name, value in (kwargs or {}).items() if name != "pin_memory"}
        own = args[0] if args and isinstance(args[0], OnGPU) else None
        if f is torch.device:
            return f(*args)
        if f == Tensor.device.__get__:
            return f(*args) if own is None else _CUDA
        if f == Tensor.is_cuda.__get__:
            return own is not None
        if f is Tensor.pin_memory:
            assert own is None
            return args[0]
        if f is Tensor.numpy and own is not None:
            raise TypeError("numpy cannot read a tensor on cuda:0")
        if f is Tensor.tolist and own is not None:
            wait()
            return own.values.tolist()
        if f is Tensor.new_tensor and own is not None:
            return OnGPU(own.values.new_tensor(*args[1:]))
        if kwargs.get("device") == _DEVICE and not any(isinstance(x, Tensor) for x in tree_leaves(args)):
            return OnGPU(f(*args, **{**kwargs, "device": "cpu"}))
        return f(*tree_map(_named, args), **kwargs)


def _named(x: Any) -> Any:
    is_gpu = x.type == "cuda" if isinstance(x, torch.device) else isinstance(x, str) and x in ("cuda", "cuda:0")
    return _DEVICE if is_gpu else x


class _Stream:
    """A stream or an event: computations are done at once, so only copies are waited for."""

    def synchronize(self) -> None:
        wait()

    def elapsed_time(self, other: _Stream) -> float:
        return 1.0

    def record(self, stream: _Stream | None = None) -> None: ...

    def wait_event(self, event: _Stream) -> None: ...

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *error: object) -> None: ...


def _flex(
    query: Tensor, key: Tensor, value: Tensor, block_mask: Any, score_mod: Any, scale: float | None, enable_gqa: bool
) -> Tensor:
    """FlexAttention by its definition, mask and scores as dense matrices."""
    zero = torch.zeros((), dtype=torch.long, device=query.device)
    i = torch.arange(query.shape[2], device=query.device)[:, None]
    j = torch.arange(key.shape[2], device=query.device)[None]
    key, value = (x.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for x in (key, value))
    scores = query.float() @ key.float().transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if score_mod is not None:
        scores = score_mod(scores, zero, zero, i, j)
    scores = scores.masked_fill(~block_mask.mask_mod(zero, zero, i, j), -torch.inf)
    return (scores.softmax(-1) @ value.float()).to(query.dtype)


def _pretend() -> None:
    os.environ["FLAME_DEVICE"] = "cuda"
    backend_registration._setup_privateuseone_for_python_backend("pretended")
    _LIBRARY.fallback(lambda op, *args, **kwargs: _computed(op, args, kwargs), "PrivateUse1")
    torch.autograd.set_multithreading_enabled(False)
    gpu: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "Event": _Stream,
        "Stream": _Stream,
        "stream": lambda stream: stream,
        "current_stream": lambda device=None: _Stream(),
        "synchronize": lambda device=None: wait(),
        "is_current_stream_capturing": lambda: False,
        "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: (2**36, 2**36),
        "memory_allocated": lambda device=None: 0,
        "get_device_capability": lambda device=None: (9, 0),
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
    }
    for name, value in gpu.items():
        setattr(torch.cuda, name, value)
    Tensor.record_stream = lambda self, stream: None
    torch.inference_mode = torch.no_grad  # whose tensors may be views
    torch.nn.Module.compile = lambda self, *args, **kwargs: None
    torch.accelerator.current_accelerator = lambda check_available=False: None  # loaders do not pin memory
    from flame_core.text import attention
    from flame_core.training import loop

    attention._compiled_flex = lambda: _flex
    loop.measured_peak = lambda device, dtype: 1e12
    _Mode().__enter__()
    run = threading.Thread.run

    def in_mode(self: threading.Thread) -> None:
        with _Mode():
            run(self)

    threading.Thread.run = in_mode


def on_a_gpu(function: Callable[..., T], *args: Any) -> T:
    """The result of a function of a module, called where there is a pretended GPU."""
    return _in_a_process(_pretend, function, *args)


def on_the_real_gpu(function: Callable[..., T], *args: Any) -> T:
    """The result of a function of a module, called where code uses this machine's GPU."""
    return _in_a_process(_use_gpu, function, *args)


def _use_gpu() -> None:
    os.environ["FLAME_DEVICE"] = "cuda"


def _in_a_process(prepare: Callable[[], None], function: Callable[..., T], *args: Any) -> T:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), prepare) as pool:
        return pool.submit(function, *args).result()


OLD_TORCH = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices that are written in Python",
)
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
GPUS = [pytest.param(on_a_gpu, id="pretended", marks=OLD_TORCH), pytest.param(on_the_real_gpu, id="real", marks=NO_GPU)]
