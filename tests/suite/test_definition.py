from __future__ import annotations

import ast
import importlib
import inspect

import pytest

from flame_core.errors import ParamsError
from flame_core.suite.benchmark_results import headline_metrics, published
from flame_core.suite.definition import USED, load_benchmark, load_benchmarks, shipped
from tests.suite.datasets import benchmark, definition_file, put


def test_every_shipped_benchmark_is_valid_and_says_how_to_get_it(tmp_path):
    assert len(shipped()) > 30
    for name in shipped():
        found = load_benchmark(name, tmp_path)
        assert found.name == name
        assert found.data.path in found.data.obtain or found.data.path.removeprefix("wds_") in found.data.obtain
        for figure in found.published:
            assert figure.source
            assert (figure.language or "mean") in [*found.languages, "mean"]


def test_published_figures_are_those_of_the_papers(tmp_path):
    urban = load_benchmark("urban-1k", tmp_path)
    assert published(urban, "image_retrieval_recall@1", "en")[0][:2] == ("FLAME ViT-B/16 YFCC15M", 0.879)
    many = load_benchmark("crossmodal3600", tmp_path)
    assert len(many.languages) == 36
    assert published(many, "text_retrieval_recall@1", "mean")[0][:2] == ("Meta CLIP 2 ViT-H/14", 0.643)
    assert published(many, "text_retrieval_recall@1", "mean")[1][:2] == ("FLAME ViT-B/16 YFCC15M", 0.5172)
    assert published(many, "image_retrieval_recall@1", "de")[0][1] == 0.6817
    assert many.prompt == "single"
    assert urban.prompt == "facets"


def test_a_published_figure_without_a_language_is_of_the_first():
    figures = [
        {"model": "a", "percent": {"acc1": 60.0}, "source": "b"},
        {"model": "c", "percent": {"acc1": 20.0}, "source": "d", "language": "mean"},
    ]
    found = benchmark("classification", "image_folder", languages=["en", "de"], published=figures)
    assert published(found, "acc1", "en") == [("a", 0.6, "b")]
    assert published(found, "acc1", "mean") == [("c", 0.2, "d")]
    figures[0]["percent"] = {"acc_1": 60.0}
    with pytest.raises(ValueError, match="published figures of acc_1, but the task gives acc1, acc5, mean_per_class"):
        benchmark("classification", "image_folder", languages=["en", "de"], published=figures)
    figures[0]["percent"] = {"acc5": 60.0}
    with pytest.raises(ValueError, match="published figures in fr, but languages are en, de"):
        benchmark(
            "classification", "image_folder", languages=["en", "de"], published=[{**figures[1], "language": "fr"}]
        )


def test_the_prompt_mode_is_an_argument(tmp_path):
    urban = load_benchmark("urban-1k", tmp_path)
    assert urban.text_kind == "long"
    single = load_benchmark("urban-1k@single", tmp_path)
    assert (single.name, single.text_kind) == ("urban-1k.single", "raw")
    assert load_benchmark("urban-1k@reference", tmp_path).text_kind == "long@reference"
    with pytest.raises(ParamsError, match="prompt modes are single, facets, reference"):
        load_benchmark("urban-1k@facet", tmp_path)
    with pytest.raises(ParamsError, match="more than one benchmark is called urban-1k"):
        load_benchmarks(["urban-1k", "urban-1k"], tmp_path)


def test_a_file_of_ones_own(tmp_path):
    definition_file(tmp_path / "mine/birds.yaml", {"kind": "retrieval"}, "captions_jsonl", "birds")
    assert load_benchmark("mine/birds.yaml", tmp_path).name == "birds"
    with pytest.raises(ParamsError, match=r"mine/bird.yaml does not exist"):
        load_benchmark("mine/bird.yaml", tmp_path)
    with pytest.raises(ParamsError, match="did you mean 'urban-1k'"):
        load_benchmark("urban1k", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"langauges": ["en"]}, "langauges: unknown key; did you mean 'languages'"),
        ({"languages": ["en", "qq"]}, r"unknown language code\(s\) qq"),
        ({"task": {"kind": "retrieval", "recal_at": [1]}}, "recal_at: unknown key"),
        ({"task": {"kind": "retreival"}}, "task: .*retreival"),
        ({"task": {"kind": "classification", "templates": {"en": ["a photo"]}}}, r"must contain \{c\}"),
        ({"task": {"kind": "classification", "templates": {"de": ["{c}"]}}}, "templates in de, but languages are en"),
        ({"task": {"kind": "segmentation", "templates": {"en": ["a photo"]}}}, r"must contain \{c\}"),
        ({"task": {"kind": "choice"}, "languages": ["en", "de"]}, "task choice asks in one language"),
        ({"data": {"first": 5}}, r"layout urban1k has no use for first \(it reads annotations, images\); leave it out"),
        ({"data": {"split": "train"}}, "layout urban1k has no use for split"),
        ({"data": {"layout": "clip_benchmark", "images": "x"}}, "layout clip_benchmark has no use for images"),
        ({"data": {"layout": "image_folder", "annotations": "x"}}, "layout image_folder has no use for annotations"),
        (
            {"task": {"kind": "linear_probe", "train_split": "test"}, "data": {"layout": "image_folder"}},
            "task.train_split and data.split are both 'test'",
        ),
        ({"prompt": "facet"}, "prompt: .*(got 'facet')"),
        ({"published": [{"model": "x", "percent": {"acc1": 360}, "source": "y"}]}, "less than or equal to 100"),
    ],
)
def test_a_typo_is_named_with_its_file(tmp_path, change, message):
    path = tmp_path / "mine.yaml"
    definition_file(path, **{"task": {"kind": "retrieval"}, "layout": "urban1k", "folder": "x"})
    put(path, path.read_text() + "\n")
    import yaml

    content = yaml.safe_load(path.read_text())
    data = content["data"] | change.get("data", {})
    content = content | change | {"data": data}
    put(path, yaml.safe_dump(content))
    with pytest.raises(ParamsError, match=rf"(?s)mine.yaml is not valid.*{message}"):
        load_benchmark("mine.yaml", tmp_path)


def test_the_keys_that_a_layout_has_use_for_are_those_that_it_reads():
    for layout, used in USED.items():
        if layout == "held_out":
            continue
        module = importlib.import_module(f"flame_core.suite.layouts.{layout}")
        nodes = list(ast.walk(ast.parse(inspect.getsource(module.read))))
        read = {
            node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value)[-4:] == "data"
        }
        read |= {node.id for node in nodes if isinstance(node, ast.Name) and node.id == "split"}
        assert read == used, layout


def test_headlines_are_metrics_of_the_task():
    assert headline_metrics(benchmark({"kind": "retrieval", "recall_at": [5, 1]}, "urban1k")) == [
        "text_retrieval_recall@1", "image_retrieval_recall@1",
    ]  # fmt: skip
    assert headline_metrics(benchmark("classification", "clip_benchmark")) == ["acc1"]
