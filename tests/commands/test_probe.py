"""`flame probe` from shards to the page: what it ranks, keeps, and refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from flame_core import gates
from flame_core.alignment import text_vectors
from flame_core.alignment.pairs import draw_pairs
from flame_core.alignment.picture_vectors import picture_vectors
from flame_core.alignment.text_vectors import LayerTexts
from flame_core.captions.table import read_captions
from flame_core.commands.probe import PAGE, RESULTS, probe, run
from flame_core.data.shards import PictureReader, read_index
from flame_core.data.sidecars import Sidecar, gather_sidecar, write_int8, write_values
from flame_core.errors import GateError, InputError, ParamsError, ResourceError
from flame_core.layout import Layout
from flame_core.params import FeaturesParams, Params
from flame_core.params.alignment import ProbedTower, ProbeParams
from flame_core.text.encoder import TextEncoder
from flame_core.verification import write_digests
from flame_core.vision.image_encoder import ImageEncoder, load_encoder
from flame_core.vision.stored_features import tower_of
from flame_core.work import VERSIONS_FILE, UnitRecord, WorkCache
from tests.export.subjects import trained
from tests.stages.pipeline import ROOT, captioned_project

TWIN = {"source": "path:data/llm/tiny", "random_seed": 1}
TOWERS = {"made": {"features": "data/sidecars/features"}, "deaf": {"features": "data/sidecars/deaf"}}
SMALL = {"pairs": 90, "recall_at": [1, 5], "neighbours": 5, "resamples": 200}
STORED = FeaturesParams.model_validate(
    {"model": {"backbone": "test_efficientnet", "head": "pooled", "init": {"source": "path:net.pth"}}}
)


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    """Shards, captions, an LLM; features that are a linear map of its layer 3, and others that know nothing."""
    root = tmp_path_factory.mktemp("probe")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        params, layout = captioned_project(root, byte_tokenizer, 150, shard_samples=64)
        params = probed(params.model_copy(update={"text": params.text.model_copy(update={"cpu_threads": 1})}))
        index = read_index(layout.shards, "train")
        pairs = draw_pairs(index, layout.captions, "en", len(index), 0)
        assert params.probe is not None
        texts = LayerTexts("tiny", params.probe.llms["tiny"], params, layout).read([pair.text for pair in pairs])[3]
        draw = np.random.default_rng(0)
        seen = (texts - texts.mean(axis=0)) @ draw.normal(size=(texts.shape[1], 48)) + 1
        by_row = {(pair.row.shard, pair.row.row): row for pair, row in zip(pairs, seen, strict=True)}
        store(layout, "features", by_row, tower=tower_of(STORED.model), weights="0" * 64)
        store(layout, "deaf", {place: draw.normal(size=48) for place in by_row})
        yield params, layout


def probed(params: Params, **values) -> Params:
    base = {"llms": {"twin": TWIN, "tiny": {}}, "towers": TOWERS} | SMALL
    return params.model_copy(update={"probe": ProbeParams.model_validate(base | values)})


def store(layout: Layout, name: str, rows: dict[tuple[str, int], np.ndarray], **origin) -> None:
    index = read_index(layout.shards, "train")
    units = {}

    def write(shard: str, size: int, folder: Path) -> UnitRecord:
        values = np.stack([rows[shard, row] for row in range(size)]).astype(np.float16)
        write_values(folder, name, np.stack([values, -values], axis=1))
        return UnitRecord()

    for shard, size in index.shard_sizes().items():
        inputs = {"made": name, "shard": shard, "origin": origin}
        units[shard] = WorkCache(layout.work, "features").get(inputs, partial(write, shard, size))
    gather_sidecar(layout.data / "sidecars" / name, layout.state, units, index, "features", origin)


def test_the_llm_that_made_the_features_is_first_at_its_layer_and_chance_is_told(world, capsys):
    params, layout = world
    run(params, layout)
    record = json.loads((layout.probe / RESULTS).read_text("utf-8"))
    made = {fit["llm"]: fit for fit in record["found"]["fits"] if fit["tower"] == "made"}
    assert list(made) == ["tiny", "twin"] and made["tiny"]["depth"] == 3
    assert made["tiny"]["recall"][-1]["value"] > 0.8 and made["tiny"]["neighbours"]["value"] > 0.7
    assert made["tiny"]["nearest_layer"] == 3  # the one that the features were made of
    (difference,) = [each for each in record["found"]["differences"] if each["tower"] == "made"]
    assert difference["ahead"] == "tiny" and difference["by"]["low"] > 0 and difference["agreeing"] == 1
    for fit in (fit for fit in record["found"]["fits"] if fit["tower"] == "deaf"):
        assert abs(fit["recall"][-1]["value"] - 5 / 30) < 0.09 and fit["neighbours"]["value"] < 0.12
        assert [layer["layer"] for layer in fit["layers"]] == [1, 2, 3]
    assert record["found"]["pairs"] == 90 and record["found"]["gallery"] == 30
    assert record["params"]["llms"]["twin"]["random_seed"] == 1
    shown = capsys.readouterr()
    assert "tiny" in shown.out and "of 3" in shown.out
    assert "not told apart" in shown.err and "16.7%" in shown.err


def test_the_page_is_complete_in_itself_and_escapes_names(world):
    params, layout = world
    run(probed(params, reading={"prompt": "<b>{caption}", "read": "mean"}, llms={"tiny": {"layers": [3, 1]}}), layout)
    page = (layout.probe / PAGE).read_text("utf-8")
    assert not re.search(r"<script|https?://(?!www.w3.org)|\bsrc=", page)
    assert "&lt;b&gt;{caption}" in page and "<b>" not in page
    assert "1 of 3" in page or "3 of 3" in page
    assert page.count("<svg") == 2 * 3 + 2 * 5  # three charts for each tower, and the signs of the legends


def test_a_second_run_reads_nothing_and_a_larger_one_only_what_is_new(world, monkeypatch):
    params, layout = world
    monkeypatch.setattr(text_vectors, "PART", 32)
    read: list[tuple[int, tuple[int, ...]]] = []
    own = text_vectors.read_layers

    def counted(encoder, kind, texts, layers, advance):
        read.append((len(texts), tuple(layers)))
        return own(encoder, kind, texts, layers, advance)

    monkeypatch.setattr(text_vectors, "read_layers", counted)
    run(probed(params, llms={"tiny": {"layers": [2]}}, pairs=64), layout)
    assert read == [(32, (2,)), (32, (2,))]
    before = (layout.probe / RESULTS).read_bytes()
    read.clear()
    with monkeypatch.context() as patch:
        patch.setattr(TextEncoder, "load", None)
        run(probed(params, llms={"tiny": {"layers": [2]}}, pairs=64), layout)
    assert not read and (layout.probe / RESULTS).read_bytes() == before
    run(probed(params, llms={"tiny": {"layers": [1, 2]}}, pairs=96), layout)
    assert read == [(32, (1,)), (32, (1,)), (32, (1, 2))]


def test_pairs_have_different_captions_and_a_smaller_number_is_a_part_of_a_larger(world):
    _, layout = world
    index = read_index(layout.shards, "train")
    pairs = draw_pairs(index, layout.captions, "en", 100, 3)
    assert draw_pairs(index, layout.captions, "en", 40, 3) == pairs[:40]
    assert len({pair.text for pair in pairs}) == 100
    for pair in pairs[:5]:
        rows = read_captions(layout.captions / Path(pair.row.shard).with_suffix(".parquet"))
        assert pair.text in [each.text for each in rows if each.key == pair.row.key and each.kind == "raw"]
    with pytest.raises(InputError, match=r"probe.pairs is 5,000, and the 1\d\d training samples have 1\d\d different"):
        draw_pairs(index, layout.captions, "en", 5000, 3)


def test_vectors_that_were_stored_in_int8_are_read(world):
    params, layout = world
    index = read_index(layout.shards, "train")
    exact, units = Sidecar(layout.features), {}

    def write(shard: str, size: int, folder: Path) -> UnitRecord:
        write_int8(folder, "coarse", exact.read([(shard, row) for row in range(size)]).float().numpy())
        return UnitRecord()

    for shard, size in index.shard_sizes().items():
        units[shard] = WorkCache(layout.work, "features").get({"coarse": shard}, partial(write, shard, size))
    gather_sidecar(layout.data / "sidecars/coarse", layout.state, units, index, "features", {})
    pairs = draw_pairs(index, layout.captions, "en", 40, 0)
    wanted, found = (
        picture_vectors(ProbedTower(features=f"data/sidecars/{name}"), pairs, index, params, layout)[0]
        for name in ("features", "coarse")
    )
    np.testing.assert_allclose(found, wanted, atol=0.01 * np.abs(wanted).max())


def test_a_trained_model_is_read_before_its_projector_and_kept(world, byte_tokenizer, monkeypatch):
    params, layout = world
    folder = trained(layout.data / "models", "lift", byte_tokenizer)
    (folder / gates.CHECKS).write_bytes(gates.to_bytes([]))
    write_digests(folder)
    chosen = ProbedTower(model="data/models/lift")
    index = read_index(layout.shards, "train")
    pairs = draw_pairs(index, layout.captions, "en", 40, 0)
    vectors, about = picture_vectors(chosen, pairs, index, params, layout)
    encoder = load_encoder(folder, "cpu")
    reader = PictureReader(layout.shards)
    jpegs = [reader.jpeg(pair.row) for pair in pairs]
    wanted = encoder.encode_with(lambda tower, batch: tower.patches(batch).mean(dim=1), jpegs)
    np.testing.assert_allclose(vectors, wanted, rtol=1e-4, atol=1e-5)
    assert set(about["model"]) == {"weights", "config"}
    monkeypatch.setattr(ImageEncoder, "encode_with", None)
    np.testing.assert_array_equal(picture_vectors(chosen, pairs, index, params, layout)[0], vectors)
    run(probed(params, towers={"lift": {"model": "data/models/lift"}}, llms={"tiny": {"layers": [1]}}, pairs=40,
               recall_at=[5]), layout)  # fmt: skip
    assert "it has seen all pairs" in (layout.probe / PAGE).read_text("utf-8")


def test_the_command_reads_params_and_overrides(world, monkeypatch, capsys):
    params, layout = world
    content = params.model_dump(mode="json", exclude={"train", "probe", "features"}, exclude_defaults=True)
    content |= {"recipes": ["flame"], "train": {"kinds": ["raw"]}}
    (layout.root / "params.yaml").write_text(yaml.safe_dump(content))
    (layout.root / "versions.yaml").write_bytes(VERSIONS_FILE.read_bytes())
    for name in ("dvc.yaml", "recipes"):
        (layout.root / name).symlink_to(ROOT / name)
    monkeypatch.chdir(layout.root)
    with pytest.raises(ParamsError, match="flame docs probe"):
        probe([], None)
    towers = "probe.towers={made: {features: data/sidecars/features}}"
    small = [f"probe.{name}={value}" for name, value in SMALL.items()]
    probe(["probe.llms={tiny: {layers: [3]}}", towers, *small], None)
    assert "3 of 3" in capsys.readouterr().out
    with pytest.raises(
        InputError, match=r"runs/\w+/data/captions is missing: run `flame run --preset \S+params.yaml -s ing"
    ):
        probe(["probe={llms: {tiny: {}}, towers: {a: {model: m}}}", "ingest.max_side=64"], str(layout.params))


def test_what_cannot_be_probed_is_named(world, monkeypatch):
    params, layout = world
    with pytest.raises(ParamsError, match="no section `probe`"):
        run(params.model_copy(update={"probe": None}), layout)
    with pytest.raises(InputError, match=r"probe.llms.tiny: layers has 4, and path:x has 3 layers"):
        run(probed(params, llms={"tiny": {"layers": [1, 4]}}), layout)
    with pytest.raises(InputError, match=r"probe.llms.gone: .*no such folder"):
        run(probed(params, llms={"gone": {"source": "path:nowhere"}}), layout)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ResourceError, match=r"probe.llms.far: llm.source hub:someone/something"):
        run(probed(params, llms={"far": {"source": "hub:someone/something@main"}}), layout)
    with pytest.raises(InputError, match=r"probe.towers.none: .*sidecars/none is missing"):
        run(probed(params, towers={"none": {"features": "data/sidecars/none"}}), layout)
    with pytest.raises((InputError, GateError), match=r"probe.towers.m: .*data/models/none.*is missing"):
        run(probed(params, towers={"m": {"model": "data/models/none"}}), layout)


def test_vectors_of_another_revision_of_the_tower_are_refused(world):
    import timm
    import torch

    params, layout = world
    net = timm.create_model("test_efficientnet")
    torch.save(dict(net.state_dict()), layout.root / "net.pth")
    with pytest.raises(
        InputError, match=r"probe.towers.made: .*another tower than params.yaml's model(.|\n)*weights: "
    ):
        run(params.model_copy(update={"features": STORED}), layout)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"llms": {"a": {"sha256": "0" * 64}}}, "give a source"),
        ({"llms": {"a": {"source": "somewhere"}}}, "write hub:"),
        ({"llms": {"a": {"layers": []}}}, "at least one"),
        ({"towers": {"a": {}}}, "either features"),
        ({"recall_at": [20]}, "too many of the 30 pairs"),
        ({"reading": {"layer": 3}}, "leave out layer"),
    ],
)
def test_params_that_make_no_sense_are_refused(values, said):
    base = {"llms": {"tiny": {}}, "towers": TOWERS} | SMALL
    with pytest.raises(ValueError, match=said):
        ProbeParams.model_validate(base | values)
