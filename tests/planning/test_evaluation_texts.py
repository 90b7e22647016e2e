"""What `flame plan` says that `embed` reads beside training captions, against what it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from flame_core.layout import Layout
from flame_core.measuring.texts import class_prompts
from flame_core.params import FolderSource, Params
from flame_core.params.evaluation import BenchmarksParams
from flame_core.planning.evaluation_texts import PartCost, evaluation_costs
from flame_core.planning.plan import plan
from flame_core.planning.start import Given, given
from flame_core.stages import embed
from flame_core.suite.collection import collect
from flame_core.text.cost import read_shape, sequence
from flame_core.text.facets import FacetTokenizer
from flame_core.text.llm import load_tokenizer
from flame_core.text.manifest import read_manifest
from flame_core.workspace import resolve_params
from tests.stages.pipeline import ROOT, captioned_project, write_pairs
from tests.suite import datasets


def parts(params: Params, layout: Layout, start: Given) -> dict[str, PartCost]:
    return evaluation_costs(params, layout, read_shape(params, layout.llm / params.llm.name), start)


def texts_section(params: Params, layout: Layout, start: Given) -> dict[str, str]:
    sections = plan(params, layout, start, tflops=1.0, processes=1)
    return next(values for title, values in sections.items() if title.startswith("texts"))


@pytest.mark.usefixtures("one_worker")
def test_tokens_and_bytes_are_those_that_embed_reads_and_stores(tmp_path: Path, byte_tokenizer: Any) -> None:
    params, layout = captioned_project(tmp_path, byte_tokenizer, 24)
    text = type(params.text).model_validate({**params.text.model_dump(), "sentence": {}})
    params = params.model_copy(update={"text": text})
    start = given(params, layout, None, {})
    section = texts_section(params, layout, start)
    embed.run(params, layout)
    total = read_manifest(layout.embeddings)["tokens"]  # full stops that are added are not those of every reading
    assert int(section["tokens"].replace(",", "")) == pytest.approx(total, rel=0.02)
    ((part, cost),) = parts(params, layout, start).items()
    assert part == "held-out captions" and section[part] == f"{cost.tokens:,.0f} tokens"
    files = [load_file(path) for path in (layout.embeddings / "texts").glob("*.safetensors")]
    assert cost.store_bytes == sum(tensor.nbytes for tensors in files for tensor in tensors.values())

    datasets.clip_benchmark_classes(tmp_path / "datasets/colours")
    datasets.definition_file(tmp_path / "colours.yaml", {"kind": "classification"}, "clip_benchmark", "colours")
    asked = params.evaluate.model_copy(update={"benchmarks": BenchmarksParams(names=["colours.yaml"])})
    with_benchmark = params.model_copy(update={"evaluate": asked})
    (collected,) = collect(with_benchmark, layout)
    tokens = FacetTokenizer(load_tokenizer(layout.llm / "tiny", params.llm), text)
    kind = collected.benchmark.text_kind
    expected = tokens.count(kind, collected.texts()) + tokens.count("sentence", collected.texts())
    assert parts(with_benchmark, layout, start)["benchmark colours"].tokens == pytest.approx(expected, rel=0.02)


def test_of_many_texts_a_part_is_counted(tmp_path: Path, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    params, layout = captioned_project(tmp_path, byte_tokenizer, 24)
    start = given(params, layout, None, {})
    (all_of_them,) = parts(params, layout, start).values()
    monkeypatch.setattr("flame_core.planning.evaluation_texts.MOST_COUNTED", 5)
    ((part, cost),) = parts(params, layout, start).items()
    assert part == "held-out captions, about"
    assert cost.store_bytes == pytest.approx(all_of_them.store_bytes, rel=0.2)
    assert cost.tokens == pytest.approx(all_of_them.tokens, rel=0.2) and cost.tokens != all_of_them.tokens


def test_the_part_that_is_drawn_is_the_same_in_every_process(
    tmp_path: Path, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, layout = captioned_project(tmp_path, byte_tokenizer, 24)
    start = given(params, layout, None, {})
    asked: list[list[tuple[str, str]]] = []

    class First:
        def __init__(self, seed: int) -> None: ...

        def sample(self, texts: list[tuple[str, str]], number: int) -> list[tuple[str, str]]:
            asked.append(texts)
            return texts[:number]

    names = [f"class {number}" for number in range(30)]
    monkeypatch.setattr("flame_core.planning.evaluation_texts.class_names", lambda classes: names)
    monkeypatch.setattr("flame_core.planning.evaluation_texts.MOST_COUNTED", 5)
    monkeypatch.setattr("flame_core.planning.evaluation_texts.Random", First)
    assert "prompts of classes, about" in parts(params, layout, start)
    prompts = [f"raw {prompt}" for name in names for prompt in class_prompts(params.evaluate, name)]
    assert [f"{kind} {text}" for kind, text in asked[1]] == prompts


def test_they_are_estimated_before_ingest_and_left_out_for_other_pictures(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", range(64))
    params = resolve_params(Layout.find(ROOT), ["evaluate={languages: [de], max_pictures: 5}"], None).params
    source = FolderSource(kind="folder", path=str(tmp_path / "pairs"))
    params, layout = params.model_copy(update={"sources": {"pairs": source}}), Layout(tmp_path, tmp_path)
    seen = given(params, layout, None, {"raw": 20})
    (part, cost) = next(iter(parts(params, layout, seen).items()))
    assert part == "held-out captions, about"
    (one,) = parts(params.model_copy(update={"evaluate": one_picture(params)}), layout, seen).values()
    assert cost.tokens == pytest.approx(5 * one.tokens)  # each picture has one caption, and none in German
    assert one.tokens == sequence(params.text, "raw", 20, seen.count).packed
    start = given(params, layout, 1000, {})
    assert not parts(params, layout, start)
    assert texts_section(params, layout, start)["not counted"] == "texts of the evaluation, since --images was given"


def one_picture(params: Params) -> Any:
    return params.evaluate.model_copy(update={"max_pictures": 1})
