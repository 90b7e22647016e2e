"""Counts floating-point operations with torch's counter, alike in all its versions."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def flop_counter() -> FlopCounterMode:
    """A counter to be asked for its total; torch's own counts no attention on a CPU before version 2.15."""
    return FlopCounterMode(display=False, custom_mapping={_ATTENTION: _forward, _BACKWARD: _backward})


def _forward(query: Any, key: Any, value: Any, *others: Any, **named: Any) -> int:
    """By the shapes of the tensors."""
    return sdpa_flop_count(query, key, value)


def _backward(gradient: Any, query: Any, key: Any, value: Any, *others: Any, **named: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)
