"""Texts of benchmarks in the store: collected by embed, added by embed-texts byte for byte, served by content."""

from __future__ import annotations

import numpy as np
import pytest

from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.params.evaluation import BenchmarksParams
from flame_core.stages import embed, embed_texts
from flame_core.suite.collection import collect, require_collected
from flame_core.suite.models.trained import TrainedModel
from flame_core.text.encoder import TextEncoder
from flame_core.text.manifest import read_manifest
from flame_core.text.store import TextStore
from tests.stages.pipeline import captioned_project, tree
from tests.suite import datasets


@pytest.fixture(scope="module")
def project(tmp_path_factory, byte_tokenizer) -> tuple[Params, Layout]:
    """A project whose store holds no benchmark yet, and three benchmarks, the data of one of which are absent."""
    root = tmp_path_factory.mktemp("project")
    params, layout = captioned_project(root, byte_tokenizer, 24)
    datasets.clip_benchmark_classes(root / "datasets/colours")
    datasets.crossmodal(root / "datasets/many")
    datasets.definition_file(root / "colours.yaml", {"kind": "classification"}, "clip_benchmark", "colours")
    languages = ["en", "de"]
    datasets.definition_file(
        root / "many.yaml", {"kind": "retrieval"}, "crossmodal3600", "many", prompt="facets", languages=languages
    )
    rows = [{"image": f"{name}.jpg", "captions": [text]} for name, text in (("a", "short"), ("b", "long " * 200))]
    datasets.put(root / "datasets/long/captions.jsonl", datasets.lines(rows))
    datasets.pictures(root / "datasets/long/images", ["a.jpg", "b.jpg"])
    datasets.definition_file(root / "long.yaml", {"kind": "retrieval"}, "captions_jsonl", "long")
    datasets.definition_file(root / "absent.yaml", {"kind": "retrieval"}, "urban1k", "nowhere")
    embed.run(params, layout)
    return params, layout


def with_benchmarks(params: Params, *names: str) -> Params:
    benchmarks = BenchmarksParams(names=list(names))
    return params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"benchmarks": benchmarks})})


def test_embed_texts_leaves_the_bytes_that_embed_leaves(project, monkeypatch):
    params, layout = project
    before = tree(layout.embeddings)
    assert "benchmarks" not in read_manifest(layout.embeddings)
    wanted = with_benchmarks(params, "colours.yaml", "many.yaml", "many.yaml@reference", "long.yaml", "absent.yaml")
    embed_texts.run(wanted, layout)
    quick = tree(layout.embeddings)
    assert len(quick) == len(before) + 8
    assert all(
        quick[name] == content for name, content in before.items() if name not in ("manifest.json", "digests.json")
    )
    assert read_manifest(layout.embeddings)["cut_texts"] == {"long": 1}
    monkeypatch.setattr(TextEncoder, "open", lambda *_: pytest.fail("the LLM was loaded"))
    embed.run(wanted, layout)
    assert tree(layout.embeddings) == quick

    fewer = with_benchmarks(params, "colours.yaml")
    embed_texts.run(fewer, layout)
    assert not [name for name in tree(layout.embeddings) if "many" in name]
    embed_texts.run(params, layout)
    assert tree(layout.embeddings) == before


def test_texts_come_from_the_store_in_the_prompt_mode_of_the_benchmark(project):
    params, layout = project
    wanted = with_benchmarks(params, "colours.yaml", "many.yaml", "many.yaml@reference")
    embed_texts.run(wanted, layout)
    store = TextStore.open(layout.embeddings)
    encoder = TextEncoder.open(params, layout)
    text = "red de"
    facets = encoder.encode("long", [text])[0]
    model = TrainedModel.__new__(TrainedModel)
    model._lookup = store.lookup
    np.testing.assert_allclose(model.texts("long", [text])[0], facets.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(
        model.texts("raw", ["a red thing"]), encoder.encode("raw", ["a red thing"])[:, 0], atol=1e-3
    )

    sequence = encoder.facets.encode("long", text)
    hidden = encoder.read_tokens([sequence]).numpy()
    mean = hidden.mean(axis=0)
    np.testing.assert_allclose(model.texts("long@reference", [text])[0], mean / np.linalg.norm(mean), atol=1e-3)
    assert np.abs(mean / np.linalg.norm(mean) - facets.mean(axis=0) / np.linalg.norm(facets.mean(axis=0))).max() > 1e-3

    with pytest.raises(InputError, match=r"no embedding of the raw text 'nobody wrote this'.*flame embed-texts"):
        model.texts("raw", ["nobody wrote this"])


def test_data_that_came_went_or_changed_are_refused_with_the_command_to_run(project):
    params, layout = project
    embed_texts.run(with_benchmarks(params, "colours.yaml"), layout)
    wanted = with_benchmarks(params, "colours.yaml", "many.yaml", "absent.yaml")
    with pytest.raises(InputError, match=r"benchmarks: many not in the store yet\. Run `flame embed-texts`"):
        require_collected(collect(wanted, layout), read_manifest(layout.embeddings))
    embed_texts.run(wanted, layout)
    manifest = read_manifest(layout.embeddings)
    require_collected(collect(wanted, layout), manifest)

    file = layout.root / "datasets/many/captions.jsonl"
    content = file.read_bytes()
    file.write_bytes(content.replace(b"another red en", b"one more red en"))
    try:
        with pytest.raises(InputError, match="many changed since"):
            require_collected(collect(wanted, layout), manifest)
    finally:
        file.write_bytes(content)
    definition = layout.root / "many.yaml"
    written = definition.read_text()
    definition.write_text(written.replace("facets", "single"))
    try:
        with pytest.raises(InputError, match="many changed since"):
            require_collected(collect(wanted, layout), manifest)
    finally:
        definition.write_text(written)
    moved = layout.root / "datasets/many"
    moved.rename(layout.root / "datasets/away")
    try:
        with pytest.raises(InputError, match="many no longer there"):
            require_collected(collect(wanted, layout), manifest)
    finally:
        (layout.root / "datasets/away").rename(moved)


def test_another_store_is_not_touched(project):
    params, layout = project
    text = params.text.model_copy(update={"max_caption_tokens": 7})
    before = tree(layout.embeddings)
    with pytest.raises(InputError, match="max_caption_tokens"):
        embed_texts.run(with_benchmarks(params, "colours.yaml").model_copy(update={"text": text}), layout)
    limited = params.model_copy(update={"text": params.text.model_copy(update={"max_tokens": 10})})
    task = {"kind": "classification", "templates": {"en": ["dear {c}"]}}
    datasets.definition_file(layout.root / "dear.yaml", task, "clip_benchmark", "colours")
    with pytest.raises(ParamsError, match=r"more tokens .*benchmark-dear.* text\.max_tokens is 10:"):
        embed_texts.run(with_benchmarks(limited, "dear.yaml"), layout)
    assert tree(layout.embeddings) == before


def test_a_benchmark_that_asks_facets_of_a_template_that_is_not_there(project):
    params, layout = project
    template = {kind: own for kind, own in params.text.template.items() if kind != "long"}
    short = params.model_copy(update={"text": params.text.model_copy(update={"template": template})})
    with pytest.raises(ParamsError, match=r"many.yaml asks facets of the 'long' template.*write many.yaml@single"):
        collect(with_benchmarks(short, "many.yaml"), layout)


@pytest.mark.parametrize("change", [{"max_pictures": 3}, {"train_language": "de"}], ids=["pictures", "language"])
def test_a_store_that_lacks_more_than_benchmarks_is_refused_since_it_would_be_recorded_as_whole(change, project):
    params, layout = project
    embed_texts.run(params, layout)
    before = tree(layout.embeddings)
    other = params.model_copy(update={"evaluate": params.evaluate.model_copy(update=change)})
    with pytest.raises(InputError, match=r"texts/0000\d\.parquet: .*evaluate\.languages.*run `flame run embed`"):
        embed_texts.run(with_benchmarks(other, "colours.yaml"), layout)
    assert tree(layout.embeddings) == before
