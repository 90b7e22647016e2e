"""Rates by layer: the nearer a layer of a pretrained backbone is to the pixels, the more slowly it learns.

timm knows the layers of its models (`group_matcher`): of a ViT the patch embedding with the tokens, and each block, the
last one with the norm; of a backbone with a feature map the stem and each block of each stage. The last one has the
whole rate, the one before it `decay` times that, and so on (BEiT, arXiv 2106.08254).
"""

from __future__ import annotations

from typing import Any

from flame_core.errors import ParamsError


def layer_rates(backbone: Any, decay: float) -> dict[str, float]:
    """{weight: factor of the learning rate} of a timm backbone.

    Raises:
        ParamsError: timm does not say what its layers are.
    """
    from timm.models import group_parameters

    if not hasattr(backbone, "group_matcher"):
        raise ParamsError(
            f"timm does not know the layers of {type(backbone).__name__}; take "
            "optimizer.multipliers, which go by the names of weights",
            key="train.optimizer.layer_decay",
        )
    layers: dict[str, Any] = group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)
    last = max(layers.values())
    return {name: decay ** (last - layer) for name, layer in layers.items()}
