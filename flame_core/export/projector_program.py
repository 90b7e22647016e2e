"""The projector in the programs of the cards, as expressions of torch's own layers."""

from __future__ import annotations

from flame_core.export.subject import Subject
from flame_core.vision.feature_maps import gives_channels_last


def projector_layers(subject: Subject) -> str:
    """The projector as an expression of `torch.nn`."""
    width, dim = subject.width, subject.dim
    norm = "" if subject.params.head == "pooled" else f", nn.LayerNorm({dim})"
    return f"nn.Sequential(nn.Linear({width}, {dim}), nn.GELU(), nn.Linear({dim}, {dim}){norm})"


def patch_tokens(subject: Subject) -> str:
    """The backbone's patch tokens [N, P, C] as an expression on `pictures`."""
    if not subject.tower.gives_map:
        return "backbone.forward_features(pictures)[:, backbone.num_prefix_tokens :]"
    flat = "flatten(1, 2)" if gives_channels_last(subject.tower.backbone) else "flatten(2).transpose(1, 2)"
    return f"backbone.forward_features(pictures).{flat}"


def projected(subject: Subject, project: str) -> str:
    """The vectors before they are normalised, as an expression on `patches` [N, P, C]."""
    return f"{project}(patches.mean(dim=1))" if subject.params.head == "pooled" else f"{project}(patches).mean(dim=1)"
