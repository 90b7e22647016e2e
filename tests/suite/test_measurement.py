"""Every task with a tiny random CLIP that the test saves, and the messages for data that cannot be used."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flame_core.digest import write_json
from flame_core.errors import InputError
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.params import ModelParams
from flame_core.suite import encoding
from flame_core.suite.benchmark_results import (
    BenchmarkResult,
    benchmark_files,
    read_benchmark_results,
    read_class_scores,
)
from flame_core.suite.collection import Collected
from flame_core.suite.content import Picture
from flame_core.suite.encoding import encoded
from flame_core.suite.measurement import run_benchmarks
from flame_core.suite.models.model import open_model
from flame_core.suite.models.trained import TrainedModel
from flame_core.vision.image_encoder import ImageEncoder
from flame_core.vision.tower import ImageTower
from tests.measuring import world
from tests.suite import datasets
from tests.suite.datasets import COLOURS, benchmark, collected, picture, put

CONFIDENCE = 0.95


@pytest.fixture
def every_task(tmp_path):
    datasets.clip_benchmark_classes(tmp_path / "classes", 3)
    datasets.clip_benchmark_classes(tmp_path / "classes", 5, "train")
    datasets.crossmodal(tmp_path / "many")
    datasets.sugarcrepe(tmp_path / "sugar")
    datasets.winoground(tmp_path / "wino")
    datasets.masks(tmp_path / "masks")
    definitions = [
        benchmark("classification", "clip_benchmark", "classes", name="classes"),
        benchmark("retrieval", "crossmodal3600", "many", name="many", languages=["en", "de", "zh", "fr"]),
        benchmark("choice", "sugarcrepe", "sugar", name="sugar"),
        benchmark("choice", "winoground", "wino", name="wino"),
        benchmark({"kind": "linear_probe", "epochs": 3}, "clip_benchmark", "classes", name="probe"),
        benchmark({"kind": "linear_probe", "method": "logistic"}, "clip_benchmark", "classes", name="logistic"),
        benchmark("segmentation", "masks", "masks", name="masks"),
    ]
    return [collected(definition, tmp_path) for definition in definitions]


def test_every_task_is_measured_with_intervals(model, every_task, tmp_path):
    found = {each.benchmark.name: each for each in run_benchmarks(model, every_task, CONFIDENCE, tmp_path / "work")}
    assert {each.status for each in found.values()} == {"measured"}
    for each in found.values():
        for row in each.rows:
            assert row.metrics.keys() == row.intervals.keys()
            for name, (low, high) in row.intervals.items():
                assert 0 <= low <= high <= 1, name
                assert 0 <= row.metrics[name] <= 1
    assert set(found["classes"].main.metrics) == {"acc1", "acc5", "mean_per_class_recall"}
    assert [row.language for row in found["many"].rows] == ["en", "de", "zh", "mean"]
    assert found["many"].missing_languages == ["fr"]
    assert found["many"].row("zh").facts["pictures"] == 5
    assert len(found["sugar"].main.metrics) == 8
    assert set(found["wino"].main.metrics) == {"text_acc", "image_acc", "acc"}
    assert found["probe"].main.metrics["lp_acc1"] > 0.5  # six colours
    assert "penalty" in found["logistic"].main.facts
    assert "miou" in found["masks"].main.metrics


def test_the_numbers_are_those_of_the_models_own_embeddings(model, every_task, tmp_path):
    (classes,) = run_benchmarks(model, every_task[:1], CONFIDENCE, tmp_path / "work")
    content = every_task[0].content
    z = model.pictures([each.read() for each in content.pictures])
    rows = [[f"a {name} thing", f"a photo of {name}"] for name in COLOURS]
    t = np.stack([model.texts("raw", prompts).mean(axis=0) for prompts in rows])
    scores = z @ (t / np.linalg.norm(t, axis=1, keepdims=True)).T
    assert classes.main.metrics["acc1"] == pytest.approx(np.mean(scores.argmax(axis=1) == content.labels), abs=1e-6)


def test_pictures_are_encoded_once_for_all_tasks_and_prompts(model, every_task, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        type(model), "pictures", lambda self, rows: calls.append(len(rows)) or datasets.vectors(len(rows), 24)
    )
    twice = [every_task[1], every_task[1]]
    run_benchmarks(model, twice, CONFIDENCE, tmp_path / "work")
    assert calls == [6]
    z = encoded(model, "views", every_task[1].content.pictures, tmp_path / "work")
    assert isinstance(z, np.memmap)


def test_data_that_are_missing_and_tasks_a_model_cannot_do_are_said(model, every_task, tmp_path):
    import timm

    save_file(timm.create_model("resnet10t", num_classes=0).state_dict(), tmp_path / "w.safetensors")
    backbone = open_model("net", f"timm:resnet10t@{tmp_path / 'w.safetensors'}", "cpu")
    absent = Collected(benchmark("retrieval", "urban1k"), None, why="data/set does not exist")
    found = run_benchmarks(backbone, [absent, every_task[0], every_task[4]], CONFIDENCE, tmp_path / "work")
    assert [each.status for each in found] == ["not available", "not offered", "measured"]
    assert found[0].why == "data/set does not exist"
    assert "backbone has no texts" in found[1].why


def test_a_picture_that_cannot_be_decoded_is_named(model, tmp_path):
    datasets.crossmodal(tmp_path / "set")
    put(tmp_path / "set/images/003.jpg", picture("red")[:60])
    each = collected(benchmark("retrieval", "crossmodal3600"), tmp_path)
    with pytest.raises(InputError, match=r"003.jpg: 003 cannot be decoded"):
        run_benchmarks(model, [each], CONFIDENCE, tmp_path / "work")


def test_files_are_read_back_and_have_the_fields_of_clip_benchmarks_build(model, every_task, tmp_path):
    found = run_benchmarks(model, every_task, CONFIDENCE, tmp_path / "work")
    files = benchmark_files(found, "tiny", "random")
    assert files == benchmark_files(run_benchmarks(model, every_task, CONFIDENCE, tmp_path / "work"), "tiny", "random")
    for name, content in files.items():
        put(tmp_path / "report" / name, content)
    assert read_benchmark_results(tmp_path / "report") == found
    for path in (tmp_path / "report/benchmarks").glob("*.json"):
        row = json.loads(path.read_text())
        assert row.keys() >= {"dataset", "model", "pretrained", "task", "language", "metrics"}
        assert all(isinstance(value, int | float) for value in row["metrics"].values())
    assert (tmp_path / "report/benchmarks/many_zh.json").is_file()
    classes = read_class_scores(tmp_path / "report", "classes", "en")
    assert [each.name for each in classes] == list(COLOURS)
    acc1 = sum(each.hits for each in classes) / sum(each.pictures for each in classes)
    assert acc1 == pytest.approx(found[0].main.metrics["acc1"], abs=1e-6)
    with pytest.raises(InputError, match="no results per class of many in en"):
        read_class_scores(tmp_path / "report", "many", "en")
    put(tmp_path / "report/benchmarks.json", "[{}]")
    with pytest.raises(InputError, match=r"benchmarks.json: no readable benchmark results"):
        read_benchmark_results(tmp_path / "report")


@pytest.mark.parametrize(("kind", "layout"), [("classification", "image_folder"), ("segmentation", "masks")])
def test_results_with_templates_in_other_languages_are_read_back(tmp_path, kind, layout):
    asked = benchmark({"kind": kind, "templates": {"de": ["ein Foto von {c}"]}}, layout, languages=["de"])
    held_out = benchmark("retrieval", "held_out").model_copy(update={"languages": ["en", "zh_TW"]})  # as the data say
    found = [BenchmarkResult(asked, "measured"), BenchmarkResult(held_out, "measured")]
    put(tmp_path / "benchmarks.json", benchmark_files(found, "tiny", "random")["benchmarks.json"])
    assert read_benchmark_results(tmp_path) == found


@pytest.mark.parametrize(("prompt", "met"), [("facets", [1, 2, 0]), ("single", [0])])
def test_a_tower_with_facet_tokens_answers_facet_by_facet(tmp_path, monkeypatch, prompt, met):
    """Two facet tokens, three text facets: the third is compared with the whole picture, and so is a single prompt."""
    monkeypatch.setattr(encoding, "_TEXTS", 4)  # several blocks
    content = datasets.captioned([2, 1, 3, 1, 1, 2])
    rows = [(picture(colour), colour) for colour in COLOURS]
    content.pictures = [Picture(name, put(tmp_path / f"{name}.jpg", jpeg)) for jpeg, name in rows]
    tower = facet_model(tmp_path, tmp_path / "model")
    definition = benchmark("retrieval", "captions_jsonl", prompt=prompt, template="short", name="made")
    (found,) = run_benchmarks(tower, [Collected(definition, content)], CONFIDENCE, tmp_path / "work")

    views = tower.encoder.encode_facets([jpeg for jpeg, _ in rows])  # [6, 3, D]
    t = facets_of("short" if prompt == "facets" else "raw", [text for _, text in content.captions["en"]])
    scores = np.mean([views[:, view] @ t[:, j].T for j, view in enumerate(met)], axis=0)  # [pictures, texts]
    owners = np.array([owner for owner, _ in content.captions["en"]])
    first = np.mean([owners[row.argmax()] == index for index, row in enumerate(scores)])
    own = np.mean([scores[:, j].argmax() == owner for j, owner in enumerate(owners)])
    assert found.main.metrics["text_retrieval_recall@1"] == pytest.approx(first, abs=1e-6)
    assert found.main.metrics["image_retrieval_recall@1"] == pytest.approx(own, abs=1e-6)
    assert not list((tmp_path / "work").glob("tmp*"))


def test_patches_of_a_tower_that_pools_with_attention_are_not_scored(tmp_path, every_task):
    params = ModelParams(
        backbone="vit_tiny_patch16_224", image_size=32, head="attention", backbone_options={"depth": 1, "img_size": 32}
    )
    folder, config = tmp_path / "model", {"recipe": {"model": params.model_dump(), "cpu_threads": 1}}
    folder.mkdir()
    save_file(torch.nn.Linear(1, 1).state_dict(), folder / WEIGHTS)
    write_json(folder / CONFIG, config)
    encoder = ImageEncoder(ImageTower(params, 24, 1), config, "cpu")
    tower = TrainedModel("pooling", encoder, folder, lambda kind, texts: datasets.vectors(len(texts), 24)[:, None])
    (found,) = run_benchmarks(tower, every_task[-1:], CONFIDENCE, tmp_path / "work")
    assert (found.status, "pools patches with attention" in found.why) == ("not offered", True)


def facets_of(kind, texts):
    """Three facets for short texts, one for raw texts."""
    return np.stack([[world.vector(kind, text, j) for j in range(3 if kind == "short" else 1)] for text in texts])


def facet_model(tmp_path, folder):
    """An untrained tower with two facet tokens, far enough from its start for pictures to differ."""
    params = world.params(tmp_path).train["plain"]
    params = params.model_copy(update={"model": params.model.model_copy(update={"facet_blocks": "all"})})
    torch.manual_seed(3)
    tower = ImageTower(params.model, world.DIMENSIONS, facets=2)
    with torch.no_grad():
        for weight in tower.parameters():
            if weight.ndim > 1:
                weight.mul_(6)
    folder.mkdir()
    save_file(tower.state_dict(), folder / WEIGHTS)
    write_json(folder / CONFIG, {"recipe": params.model_dump(mode="json")})
    encoder = ImageEncoder(tower, {"recipe": {"model": {"image_size": 32}, "cpu_threads": 1}}, "cpu")
    return TrainedModel("plain", encoder, folder, facets_of)
