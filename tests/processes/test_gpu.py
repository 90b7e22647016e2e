"""What concerns GPUs only, as far as it can be seen without one."""

from __future__ import annotations

import pytest
import torch

from flame_core.errors import ResourceError
from flame_core.processes.gpu import free_memory, memory_advice, require_float8


def test_memory_that_ran_out_says_what_to_set():
    said = r"ran out \(CUDA out of memory\): set text\.batch_tokens"
    with pytest.raises(ResourceError, match=said), memory_advice("set text.batch_tokens (now 16,384) to less"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")
    with pytest.raises(RuntimeError, match="else"), memory_advice("x"):
        raise RuntimeError("something else")


def test_what_torch_kept_for_later_is_free(monkeypatch: pytest.MonkeyPatch):
    kept = [60]
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.empty_cache", kept.clear)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (80 - sum(kept), 80))
    assert free_memory() == 80


def test_a_gpu_without_float8_is_named(monkeypatch: pytest.MonkeyPatch):
    require_float8("cpu")
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA A100")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
    require_float8("cuda")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (8, 0))
    with pytest.raises(ResourceError, match=r"A100 has 8\.0: set text\.dtype to bfloat16"):
        require_float8("cuda")
