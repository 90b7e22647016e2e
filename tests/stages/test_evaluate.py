"""The stages evaluate and compare, and query, on real shards, a real (untrained) tower and a real store."""

from __future__ import annotations

import html
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flame_core import gates
from flame_core.data.shards import read_index
from flame_core.digest import write_json
from flame_core.errors import GateError, InputError
from flame_core.params import SpectrumParams
from flame_core.stages import baselines, compare, evaluate
from flame_core.verification import write_digests
from flame_core.vision.image_encoder import ImageEncoder
from tests.search.runs import search
from tests.stages.finished_run import finished_run


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setenv("FLAME_DEVICE", "cpu")


@pytest.fixture
def run(tmp_path):
    return finished_run(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_evaluate_writes_the_same_report_twice_and_compare_reads_it(run):
    params, layout = run
    evaluate.run(params, layout, "plain")
    first = contents(layout.report("plain"))
    assert first.keys() >= {
        "metrics.json", "results.json", "outcomes.parquet", "report.html", "checks.json", "digests.json",
        "plots/loss.svg", "plots/recall_image_to_text.svg",
    }  # fmt: skip
    metrics = json.loads(first["metrics.json"])
    assert metrics["retrieval/en/n"] == 12
    assert metrics["retrieval/en/ceiling/recall@10"] == 1.0  # every caption finds its own
    assert 0 < metrics["retrieval/de/ceiling/recall@10"] <= 1.0
    evaluate.run(params, layout, "plain")
    assert contents(layout.report("plain")) == first

    evaluate.run(params, layout, "other")
    assert contents(layout.report("other"))["metrics.json"] != first["metrics.json"]
    baselines.run(params, layout)
    compare.run(params, layout)
    table = json.loads((layout.comparison / compare.COMPARISON).read_text())
    assert list(table["recipes"]) == ["other", "plain"]  # sorted by JSON; the baseline is named
    assert table["baseline"] == "plain"
    assert "within_interval" in table["recipes"]["other"]["classification/top1"]
    assert "other" in (layout.comparison / compare.PAGE).read_text()
    assert gates.read(layout.comparison)


def test_the_tower_is_loaded_once(run, monkeypatch):
    from flame_core.vision import image_encoder

    loaded = []
    load = image_encoder.load_encoder
    monkeypatch.setattr(image_encoder, "load_encoder", lambda *given: loaded.append(given) or load(*given))
    evaluate.run(*run, "plain")
    assert len(loaded) == 1


def test_vectors_of_the_split_are_kept_by_the_pictures_bytes(run, monkeypatch):
    params, layout = run
    encoded = []
    encode = ImageEncoder.encode_facets
    monkeypatch.setattr(ImageEncoder, "encode_facets", lambda *given: encoded.append(given) or encode(*given))
    for _ in range(2):
        evaluate.run(params, layout, "plain")
        assert len(encoded) == 1
    row = read_index(layout.shards, "val")[0]
    other = io.BytesIO()
    Image.new("RGB", (8, 8), "white").save(other, "JPEG", quality=10)
    before = np.load(next(layout.work.glob("encode/*/vectors.npy")))
    with (layout.shards / row.shard).open("r+b") as shard:
        shard.seek(row.offset)
        shard.write(other.getvalue().ljust(row.size, b"\0"))  # of the same size
    write_digests(layout.shards)
    evaluate.run(params, layout, "plain")
    assert len(encoded) == 2
    after = encode(encoded[1][0], encoded[1][1])
    assert len(before) == len(after) and np.abs(after - before).max() > 1e-3


def test_inputs_with_a_failed_gate_or_of_another_run_are_refused(run):
    params, layout = run
    bad = gates.Check("loss_went_down", False, "it did not")
    (layout.model("plain") / gates.CHECKS).write_bytes(gates.to_bytes([bad]))
    with pytest.raises(GateError, match="loss_went_down"):
        evaluate.run(params, layout, "plain")
    moved = params.model_copy(update={"text": params.text.model_copy(update={"layer": 1})})
    with pytest.raises(InputError, match="layer"):
        evaluate.run(moved, layout, "other")
    with pytest.raises(InputError, match="reports/plain"):
        compare.run(params, layout)
    config = layout.model("other") / "config.json"
    write_json(config, {**json.loads(config.read_text()), "layer": 1})
    write_digests(layout.model("other"))
    with pytest.raises(InputError, match="differ in layer; run `flame train other`"):
        evaluate.run(params, layout, "other")
    with pytest.raises(InputError, match="differ in layer"):
        search(params, layout, "other", "Eine grüne Sache.", top=1)


def test_spectra_are_measured_only_if_params_ask_for_them(run):
    params, layout = run
    evaluate.run(params, layout, "plain")
    plain = contents(layout.report("plain"))
    assert b"spec/" not in plain["metrics.json"] and b"SVDE" not in plain["report.html"]
    asked = params.model_copy(
        update={"evaluate": params.evaluate.model_copy(update={"spectrum": SpectrumParams(max_top_share=0.01)})}
    )
    evaluate.run(asked, layout, "plain")
    found = contents(layout.report("plain"))
    before, metrics = json.loads(plain["metrics.json"]), json.loads(found["metrics.json"])
    assert {name: metrics[name] for name in before} == before
    for name in ("pictures", "texts"):
        for centring in ("none", "column"):
            numbers = {key: metrics[f"spec/{key}/{name}/{centring}"] for key in ("svde", "lsvr", "erank", "p1")}
            assert 0 <= numbers["lsvr"] <= numbers["svde"] <= np.log(12) and 0 < numbers["p1"] <= 1
    assert found["report.html"].count(b"SVDE") > plain["report.html"].count(b"SVDE")
    checks = {each.name: each for each in gates.read(layout.report("plain"))}
    assert checks["spectrum_bounds/pictures"].passed and checks["spectrum_rows/texts"].passed
    warned = checks["spectrum_direction/texts"]
    assert (warned.passed, warned.blocking, warned.threshold) == (False, False, 0.01)
    page = html.unescape(found["report.html"].decode())
    shown = [each for each in checks.values() if each.blocking or not each.passed]
    assert len(shown) >= 5 and all(each.description in page for each in shown)
    assert f"uncentred: <b>{warned.value:.6g}</b> (threshold 0.01)" in page
