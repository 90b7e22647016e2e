"""evaluate, baselines and compare with benchmarks and somebody else's model: from files to pages."""

from __future__ import annotations

import json
import sys

import pytest
from safetensors.torch import save_file

from flame_core import gates
from flame_core.digest import write_json
from flame_core.errors import InputError, ParamsError, ResourceError
from flame_core.model_files import TEXT_WEIGHTS
from flame_core.params import TextTowerParams
from flame_core.params.evaluation import BenchmarksParams
from flame_core.patches import lm_head
from flame_core.patches.lm_head import LMHead
from flame_core.stages import baselines, compare, evaluate
from flame_core.suite.benchmark_results import read_benchmark_results
from flame_core.suite.collection import CUT_TEXTS, collect, digests, jobs
from flame_core.text.manifest import MANIFEST
from flame_core.text.store import write_texts
from flame_core.text.transformer import Captions, TextTower
from flame_core.verification import write_digests
from tests.conftest import tiny_llm
from tests.measuring import world
from tests.pages.test_report import Page
from tests.stages.test_evaluate import contents, on_cpu, run  # noqa: F401  (fixtures)
from tests.suite import datasets, tiny_clip
from tests.suite.datasets import COLOURS, definition_file, picture, put

SETS = 10


def test_what_is_not_there_is_named_as_params_name_it(run):  # noqa: F811
    params, layout = run
    definition_file(layout.root / "sets/away.yaml", {"kind": "retrieval"}, "urban1k", "away")
    options = {"benchmarks": BenchmarksParams(names=["sets/away.yaml"])}
    [found] = collect(params.model_copy(update={"evaluate": params.evaluate.model_copy(update=options)}), layout)
    assert found.why.startswith("datasets/away")  # in a project that moves, the report stays as it is
    assert found.why.endswith("does not exist")


def test_texts_that_only_a_baseline_needs_are_not_asked_of_the_llm(run, byte_tokenizer):  # noqa: F811
    params, layout = run
    datasets.crossmodal(layout.root / "datasets/many")
    for name, prompt in (("many", "single"), ("theirs", "facets")):  # of which params may have no template
        definition_file(
            layout.root / f"sets/{name}.yaml", {"kind": "retrieval"}, "crossmodal3600", "many", prompt=prompt,
            languages=["en", "zh"], template="raw" if prompt == "single" else "long",
        )  # fmt: skip
    tiny_clip.save(layout.root / "clip", byte_tokenizer)
    listed = BenchmarksParams(names=[], only_baselines=["sets/theirs.yaml"])
    options = {"benchmarks": listed, "baselines": {"CLIP": "transformers:clip"}}  # relative to the project
    params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update=options)})
    assert collect(params, layout) == []  # so `embed`, `embed-texts` and the recipes' reports know nothing of it
    baselines.run(params, layout)  # whose store has no text of it
    assert {"CLIP/benchmarks/theirs_zh.json", "CLIP/benchmarks/theirs_mean.json"} <= contents(layout.baselines).keys()
    with pytest.raises(ValueError, match=r"only_baselines: a stands under names as well"):
        BenchmarksParams(names=["a"], only_baselines=["a"])
    assert "only_baselines" not in BenchmarksParams(names=["a"]).model_dump()


@pytest.fixture
def project(run, byte_tokenizer):  # noqa: F811
    """The run with eleven colour sets, retrieval short and long, one benchmark without data, a CLIP, an LLM."""
    params, layout = run
    root = layout.root
    names = []
    published = [{"model": "Somebody's ViT-B/16", "percent": {"acc1": 36.0}, "source": "their paper"}]
    for number in range(SETS):
        datasets.clip_benchmark_classes(root / f"datasets/colours{number}")
        names.append(f"sets/colours{number}.yaml")
        definition_file(
            root / names[-1], {"kind": "classification"}, "clip_benchmark", f"colours{number}", published=published
        )
    datasets.crossmodal(root / "datasets/many")
    put(root / "datasets/many/images/stray.jpg", picture("red"))
    many = [{"model": "Theirs", "percent": {"text_retrieval_recall@1": 51.7}, "source": "a figure", "language": code}
            for code in ("mean", "de")]  # fmt: skip
    languages = ["en", "de", "zh"]
    definition_file(
        root / "sets/many.yaml", {"kind": "retrieval"}, "crossmodal3600", "many", languages=languages, published=many
    )
    definition_file(root / "sets/long.yaml", {"kind": "retrieval"}, "crossmodal3600", "many", prompt="facets",
                    template="short", long_text=True)  # fmt: skip
    datasets.sugarcrepe(root / "datasets/sugar")
    definition_file(root / "sets/sugar.yaml", {"kind": "choice", "ties": "first"}, "sugarcrepe", "sugar")
    definition_file(root / "sets/away.yaml", {"kind": "retrieval"}, "urban1k", "away")
    names += ["sets/many.yaml", "sets/long.yaml", "sets/sugar.yaml", "sets/away.yaml"]
    clip = tiny_clip.save(root / "clip", byte_tokenizer)
    options = {"benchmarks": BenchmarksParams(names=names), "baselines": {"CLIP": f"transformers:{clip}"}}
    params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update=options)})
    collected = collect(params, layout)
    for job in jobs(collected):
        vectors = {kind: (texts, world.lookup(kind, texts)) for kind, texts in job.texts.items()}
        write_texts(layout.embeddings / f"{job.name}.safetensors", vectors, "float32")
    manifest = json.loads((layout.embeddings / MANIFEST).read_text())
    write_json(layout.embeddings / MANIFEST, {**manifest, "benchmarks": digests(collected), CUT_TEXTS: {"long": 3}})
    folder = layout.llm / params.llm.name
    tiny_llm("llama").save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    write_json(folder / "source.json", {"files": {}})
    write_digests(layout.embeddings)
    write_digests(layout.llm)
    return params, layout


@pytest.fixture
def words(monkeypatch):
    """The tiny tokenizer has no words, so the patches say colours instead."""

    def top_words(self, vectors, count):
        return [[COLOURS[int(abs(vector[0]) * 997) % 4]] * count for vector in vectors]

    monkeypatch.setattr(lm_head, "word_tokens", lambda tokenizer: dict(enumerate(COLOURS)))
    monkeypatch.setattr(LMHead, "top_words", top_words)


def test_pages_hold_benchmarks_and_baselines_and_are_the_same_twice(project, words):
    params, layout = project
    evaluate.run(params, layout, "plain")
    evaluate.run(params, layout, "other")
    first = contents(layout.report("plain"))
    evaluate.run(params, layout, "plain")
    assert contents(layout.report("plain")) == first
    assert {"benchmarks/many_zh.json", "benchmarks/many_mean.json", "benchmarks/held-out_en.json"} <= first.keys()
    row = json.loads(first["benchmarks/held-out_de.json"])
    metrics = json.loads(first["metrics.json"])
    assert row["metrics"]["text_retrieval_recall@10"] == metrics["retrieval/de/image_to_text/recall@10"]
    assert row["metrics"]["text_retrieval_recall@10_low"] == metrics["retrieval/de/image_to_text/recall@10/low"]

    page = Page((layout.report("plain") / evaluate.REPORT).read_text())
    assert page.open == []
    assert "Not available: 1 benchmark" in page.text
    assert "make it" in page.text
    assert "pictures without a caption" in page.text
    assert "stray.jpg" in page.text
    assert "texts cut at text.max_caption_tokens" in page.text
    cut = {
        each.benchmark.name: each.cut_texts for each in read_benchmark_results(layout.report("plain")) if each.cut_texts
    }
    assert cut == {"long": 3}
    assert "A tie counts as right, as in CLIP_benchmark, on: sugar" in page.text
    assert "Zero-shot top-1 on 10 data sets" in page.text
    assert "Short texts against long ones" in page.text
    assert "sugar: right text by group" in page.text
    assert "replace_rel" in page.text
    assert page.text.count("nearest pictures") == 6
    assert sum(attributes.get("class") == "cells" for _, attributes in page.tags) == 6 * 3  # words and two facets

    baselines.run(params, layout)
    before = contents(layout.baselines)
    baselines.run(params, layout)
    assert contents(layout.baselines) == before
    assert "CLIP/benchmarks/sugar_en.json" in before
    compare.run(params, layout)
    table = json.loads((layout.comparison / compare.COMPARISON).read_text())
    assert set(table["recipes"]) == {"plain", "other", "CLIP"}
    shown = Page((layout.comparison / compare.PAGE).read_text())
    assert shown.open == []
    assert "Somebody's ViT-B/16" in shown.text
    assert "3 models" in shown.text
    assert gates.read(layout.comparison)


def test_a_text_side_of_its_own_is_mapped_with_its_texts_and_not_read_in_the_llms_words(project, words, byte_tokenizer):
    params, layout = project
    tower = TextTowerParams(width=16, depth=1, heads=2, max_tokens=32)
    recipe = params.train["other"].model_copy(update={"text_tower": tower})
    params = params.model_copy(update={"train": params.train | {"other": recipe}})
    folder = layout.model("other")
    byte_tokenizer.save_pretrained(folder)
    vocabulary = Captions(folder / "tokenizer.json", tower).end + 1
    save_file(TextTower(tower, vocabulary, world.DIMENSIONS).state_dict(), folder / TEXT_WEIGHTS)
    config = json.loads((folder / "config.json").read_text())
    kinds = {"recipe": recipe.model_dump(mode="json"), "text_facets": {"raw": 1, "short": 2}}
    write_json(folder / "config.json", config | kinds)
    write_digests(folder)

    evaluate.run(params, layout, "other")
    page = Page((layout.report("other") / evaluate.REPORT).read_text())
    assert sum(attributes.get("class") == "cells" for _, attributes in page.tags) == 6 * 2  # the facets alone
    assert "output matrix" not in page.text
    store = json.loads((layout.report("other") / "benchmarks/long_en.json").read_text())["metrics"]
    evaluate.run(params, layout, "plain")
    assert store != json.loads((layout.report("plain") / "benchmarks/long_en.json").read_text())["metrics"]


def test_a_model_without_texts_is_compared_by_its_probes_alone(project):
    import timm

    params, layout = project
    save_file(timm.create_model("resnet10t", num_classes=0).state_dict(), layout.root / "w.safetensors")
    backbone = {"net": f"timm:resnet10t@{layout.root / 'w.safetensors'}"}
    params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"baselines": backbone})})
    baselines.run(params, layout)
    found = {each.benchmark.name: each for each in read_benchmark_results(layout.baselines / "net")}
    assert found["held-out"].status == "not offered"
    assert "linear_probe" in found["many"].why
    for recipe in params.recipes:
        evaluate.run(params, layout, recipe)
        page = Page((layout.report(recipe) / evaluate.REPORT).read_text())  # this LLM's tokens are no words
        assert sum(attributes.get("class") == "cells" for _, attributes in page.tags) == 6 * 2
    compare.run(params, layout)
    assert set(json.loads((layout.comparison / compare.COMPARISON).read_text())["recipes"]) == {"plain", "other"}


def test_one_bad_model_does_not_lose_the_others(project, tmp_path, caplog, monkeypatch):
    import timm

    monkeypatch.setitem(sys.modules, "open_clip", None)  # not installed
    params, layout = project
    weights = tmp_path / "w.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=0).state_dict(), weights)
    (tmp_path / "bad").mkdir()
    sources = {"bad": f"transformers:{tmp_path / 'bad'}", "net": f"timm:resnet10t@{weights}"}

    def measured(**more: str) -> None:
        options = params.evaluate.model_copy(update={"baselines": {**sources, **more}})
        baselines.run(params.model_copy(update={"evaluate": options}), layout)

    measured()
    (check,) = gates.read(layout.baselines)
    assert not check.passed and not check.blocking and "bad" in check.description
    assert "check failed: baselines_read" in caplog.text
    first = contents(layout.baselines)
    assert "net/benchmarks.json" in first and not any(name.startswith("bad/") for name in first)
    units = sorted((layout.work / "baselines").glob("*/*.json"))
    with pytest.raises(ResourceError, match=r"evaluate.baselines.away: .*; evaluate.baselines.bad: .* is kept"):
        measured(away="open_clip:ViT-B-16@laion")
    assert sorted((layout.work / "baselines").glob("*/*.json")) == units  # found, not measured again
    assert contents(layout.baselines) == first
    asked = params.evaluate.model_copy(update={"baselines": sources})
    for recipe in params.recipes:
        evaluate.run(params, layout, recipe)
    compare.run(params.model_copy(update={"evaluate": asked}), layout)


def test_a_fault_while_a_model_is_measured_is_not_told_of_the_model(project, tmp_path, monkeypatch):
    import timm

    params, layout = project
    weights = tmp_path / "w.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=0).state_dict(), weights)
    options = params.evaluate.model_copy(update={"baselines": {"net": f"timm:resnet10t@{weights}"}})

    def damaged(*_):
        raise InputError("birds/1.jpg: picture 1 cannot be read")

    monkeypatch.setattr("flame_core.suite.baselines.run_benchmarks", damaged)
    with pytest.raises(InputError, match=r"evaluate.baselines.net: birds/1.jpg: .* is kept"):
        baselines.run(params.model_copy(update={"evaluate": options}), layout)


def test_benchmarks_that_are_not_in_the_store_stop_evaluation(project):
    params, layout = project
    manifest = json.loads((layout.embeddings / MANIFEST).read_text())
    del manifest["benchmarks"]["many"]
    write_json(layout.embeddings / MANIFEST, manifest)
    write_digests(layout.embeddings)
    for stage in (lambda: evaluate.run(params, layout, "plain"), lambda: baselines.run(params, layout)):
        with pytest.raises(InputError, match=r"many not in the store yet\. Run `flame embed-texts`"):
            stage()


def test_a_baseline_may_not_take_a_recipes_name_and_must_say_its_kind(tmp_path):
    with pytest.raises(ParamsError, match="plain is the name of a recipe"):
        world.params(tmp_path, baselines={"plain": "timm:resnet10t"})
    with pytest.raises(ParamsError, match=r"clip: 'openai/clip' must be transformers:"):
        world.params(tmp_path, baselines={"clip": "openai/clip"})
