"""The embed stage with a tiny random Llama, and the demo's token budget with the real captions and tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flame_core import gates
from flame_core.captions.table import read_captions
from flame_core.data.shards import INDEX, shard_names
from flame_core.errors import GateError, InputError, ParamsError
from flame_core.layout import Layout
from flame_core.measuring.texts import read_validation_captions
from flame_core.params import Params, load_params
from flame_core.stages import caption, download, embed, ingest
from flame_core.text.encoder import TextEncoder
from flame_core.text.facets import FacetTokenizer
from flame_core.text.jobs import Job
from flame_core.text.llm import load_tokenizer
from flame_core.text.manifest import read_manifest, require_fit
from flame_core.text.store import Drawn, TextStore, TrainStore
from flame_core.verification import write_digests
from tests.stages.pipeline import ROOT, captioned_project, start_stage, tree


@pytest.fixture
def prepared(tmp_path, byte_tokenizer) -> tuple[Params, Layout]:
    """Shards and captions of 40 drawings, and a tiny LLM."""
    return captioned_project(tmp_path, byte_tokenizer, 40)


def with_text(params: Params, **changes) -> Params:
    return params.model_copy(update={"text": params.text.model_copy(update=changes)})


def test_every_sample_has_its_facets_in_order(prepared):
    params, layout = prepared
    embed.run(params, layout)
    store = TrainStore(layout.embeddings)
    assert store.facets == ["raw/1", "short/1", "short/2", "short/3"]
    encoder = TextEncoder.open(params, layout)
    for shard in shard_names(layout.shards, "train"):
        rows = read_captions(layout.captions / Path(shard).with_suffix(".parquet"))
        raw = {c.row: c.text for c in rows if c.kind == "raw"}
        short = {c.row: c.text for c in rows if c.kind == "short"}
        assert store.rows(shard) == len(raw)
        for row in raw:
            expected = np.concatenate([encoder.encode("raw", [raw[row]])[0], encoder.encode("short", [short[row]])[0]])
            np.testing.assert_allclose(store.read([Drawn(shard, row, [0, 1, 2, 3])])[0], expected, atol=1e-3)


def test_running_again_computes_nothing_and_gives_the_same_bytes(prepared, monkeypatch):
    params, layout = prepared
    embed.run(params, layout)
    before = tree(layout.embeddings)
    monkeypatch.setattr(TextEncoder, "open", lambda *_: pytest.fail("the LLM was loaded"))
    embed.run(params, layout)
    assert tree(layout.embeddings) == before


def test_tokens_of_units_that_are_there_are_not_counted_again_unless_they_are_older(prepared, monkeypatch):
    params, layout = prepared
    embed.run(params, layout)
    before, counted = tree(layout.embeddings), []
    count = FacetTokenizer.count
    monkeypatch.setattr(FacetTokenizer, "count", lambda *given: counted.append(given[1]) or count(*given))
    embed.run(params, layout)
    assert tree(layout.embeddings) == before and not counted
    for path in (layout.work / "embed").glob("*/ledger.json"):
        ledger = json.loads(path.read_text())
        del ledger["ledger_sha256"], ledger["counts"]["tokens"]
        path.write_text(json.dumps(ledger))
    embed.run(params, layout)
    assert tree(layout.embeddings) == before and {"raw", "short"} <= set(counted)


def test_bytes_do_not_depend_on_what_was_done_before(prepared):
    """One unit lost, or everything at once: the same bytes."""
    params, layout = prepared
    embed.run(params, layout)
    before = tree(layout.embeddings)
    lost = sorted(path for path in (layout.work / "embed").iterdir())[0]
    shutil.rmtree(lost)
    embed.run(params, layout)
    assert tree(layout.embeddings) == before
    shutil.rmtree(layout.work / "embed")
    embed.run(params, layout)
    assert tree(layout.embeddings) == before


@pytest.mark.slow
def test_another_order_of_kinds_is_another_file(prepared):
    params, layout = prepared
    embed.run(params, layout)
    first = tree(layout.embeddings)
    turned = with_text(params, train_kinds=["short", "raw"])
    embed.run(turned, layout)
    assert TrainStore(layout.embeddings).facets == ["short/1", "short/2", "short/3", "raw/1"]
    found = tree(layout.embeddings)
    shutil.rmtree(layout.work / "embed")
    embed.run(turned, layout)
    assert tree(layout.embeddings) == found
    embed.run(params, layout)
    assert tree(layout.embeddings) == first


def test_two_processes_leave_the_bytes_of_one(prepared):
    params, layout = prepared
    embed.run(params, layout)
    before = tree(layout.embeddings)
    units = tree(layout.work / "embed")
    shutil.rmtree(layout.work / "embed")
    shutil.rmtree(layout.embeddings)
    process = start_stage("embed", params, layout, embed_processes="2", device="cpu")
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert tree(layout.embeddings) == before
    assert tree(layout.work / "embed") == units


@pytest.mark.slow
def test_what_a_process_raises_is_raised_here_and_finished_files_are_kept(prepared):
    """Shards of several captions; the LLM that lies there has too few layers."""
    params, layout = prepared
    process = start_stage("embed", with_text(params, layer=4), layout, embed_processes="2", device="cpu")
    output, _ = process.communicate(timeout=900)
    assert process.returncode != 0
    assert "InputError: text.layer is 4, but tiny has 3 layers" in output.decode()


def test_centring_is_kept_in_the_manifest_and_applied_to_samples_and_texts(prepared):
    params, layout = prepared
    embed.run(params, layout)
    plain = TrainStore(layout.embeddings)
    shards = shard_names(layout.shards, "train")
    places = [Drawn(s, r, [0, 1, 2, 3]) for s in shards for r in range(plain.rows(s))]
    every = plain.read(places).float().numpy()
    text = next(c.text for c in read_captions(layout.captions / "val/00000.parquet") if c.kind == "raw")
    t = TextStore.open(layout.embeddings).lookup("raw", [text])[0, 0]

    centred = with_text(params, center="global")
    embed.run(centred, layout)
    mean = every.mean(axis=(0, 1))

    def expected(vector: np.ndarray) -> np.ndarray:
        return (vector - mean) / np.linalg.norm(vector - mean)

    read = TrainStore(layout.embeddings).read([Drawn(shards[0], 0, [2])])[0, 0]
    np.testing.assert_allclose(read, expected(every[0, 2]), atol=1e-4)
    np.testing.assert_allclose(TextStore.open(layout.embeddings).lookup("raw", [text])[0, 0], expected(t), atol=1e-4)
    with pytest.raises(InputError, match="center: the store has 'global', this run wants 'none'"):
        require_fit(read_manifest(layout.embeddings), params, layout)


def test_captions_that_changed_are_noticed_by_consumers(prepared):
    params, layout = prepared
    embed.run(params, layout)
    manifest = read_manifest(layout.embeddings)
    require_fit(manifest, params, layout)
    with pytest.raises(InputError, match="store_dtype: the store has 'float16', this run wants 'int8'"):
        require_fit(manifest, with_text(params, store_dtype="int8"), layout)
    path = layout.captions / "train/00000.parquet"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content + b" ")
    with pytest.raises(InputError, match="captions: the store has"):
        require_fit(manifest, params, layout)


def test_a_budget_refuses_before_anything_is_spent(prepared, monkeypatch):
    params, layout = prepared
    monkeypatch.setattr(TextEncoder, "open", lambda *_: pytest.fail("the LLM was loaded"))
    with pytest.raises(ParamsError, match=r"takes [\d,]+ more tokens .* text\.max_tokens is 100: raise it"):
        embed.run(with_text(params, max_tokens=100), layout)


def test_what_is_stored_costs_nothing_of_the_budget(prepared):
    params, layout = prepared
    embed.run(params, layout)
    before = tree(layout.embeddings)
    embed.run(with_text(params, max_tokens=1), layout)
    assert tree(layout.embeddings) == before


def test_a_failed_check_of_the_captions_stops_it(prepared):
    params, layout = prepared
    path = layout.captions / gates.CHECKS
    checks = json.loads(path.read_text())
    checks[0]["passed"] = False
    path.unlink()
    path.write_text(json.dumps(checks))
    with pytest.raises(GateError, match=checks[0]["name"]):
        embed.run(params, layout)


def test_facets_that_are_all_alike_fail_their_check(prepared):
    params, layout = prepared
    same = params.text.model_dump() | {"train_kinds": ["short"]}
    same["template"]["short"]["facets"] = [same["template"]["raw"]["facets"][0]] * 3
    embed.run(params.model_copy(update={"text": type(params.text).model_validate(same)}), layout)
    (failed,) = [check for check in gates.read(layout.embeddings) if not check.passed]
    assert failed.name == "facets_differ"
    assert failed.blocking


def test_captions_of_fewer_samples_than_the_shards_hold_are_a_blocking_check(prepared):
    params, layout = prepared
    path = layout.shards / INDEX
    table = pq.read_table(path)
    row = table.filter(pc.equal(table["split"], "train")).slice(0, 1)
    path.unlink()
    pq.write_table(pa.concat_tables([table, row]), path)
    write_digests(layout.shards)
    embed.run(params, layout)
    (failed,) = [check for check in gates.read(layout.embeddings) if not check.passed]
    assert (failed.name, failed.blocking, failed.keys) == ("embeddings_aligned", True, ["train/00000.tar"])


def test_nearest_captions_are_read_from_the_shards_that_were_surveyed_alone(prepared):
    class Unread(dict[str, list[str]]):
        def __getitem__(self, kind: str) -> list[str]:
            raise AssertionError(kind)

    params, _ = prepared
    texts = {"raw": ["a", "b", "c"], "short": ["d", "e", "f"]}
    jobs = [Job("train/00000", texts), Job("texts/prompts", Unread(texts)), Job("train/00001", Unread(texts))]
    t = np.eye(4)[[0, 0, 3]] + 0.1 * np.eye(4)[[1, 2, 2]]  # of both first ones the other is nearest, of the last none
    found = embed._neighbours(params, jobs, np.repeat(t[:, None], 4, axis=1))
    assert [row[:3] for row in found[:4]] == [["a", "raw/1", "b"], *(["d", f"short/{j}", "e"] for j in (1, 2, 3))]
    assert [row[2] for row in found[4:8]] == ["a", "d", "d", "d"]


@pytest.mark.slow
def test_the_demo_stays_within_its_token_budget(tmp_path, smollm2):
    """All that `make demo` puts through the LLM: at most 120,000 tokens, counted on the real captions."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    layout = Layout.find(tmp_path)
    params = load_params(layout)
    assert params.text.max_tokens == 120_000
    download.run(params, layout)
    ingest.run(params, layout)
    caption.run(params, layout)
    layout.llm.mkdir(parents=True)
    (layout.llm / params.llm.name).symlink_to(smollm2)
    tokens = FacetTokenizer(load_tokenizer(layout.llm / params.llm.name, params.llm), params.text)
    jobs = embed.plan_jobs(params, layout, read_validation_captions(layout.captions, params.evaluate))
    count = sum(tokens.count(kind, texts) for job in jobs for kind, texts in job.texts.items())
    assert 100_000 < count <= 120_000
