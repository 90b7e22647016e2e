"""Counts of concepts and trainings: recipes that draw by them, and a trained tower that tags pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from flame_core.concepts.concept_out import read_frequencies, read_manifest
from flame_core.errors import InputError
from flame_core.graph.links import link_stages
from flame_core.graph.section_stages import section_stages
from flame_core.layout import Layout
from flame_core.params import ConceptParams, Params
from flame_core.settings import settings
from flame_core.stages import concepts, embed, train
from tests.stages.pipeline import captioned_project
from tests.training.world import recipe


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    root = tmp_path_factory.mktemp("sampling")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        settings.cache_clear()
        params, layout = captioned_project(root, byte_tokenizer, 24)
        params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"languages": []})})
        embed.run(params, layout)
        yield params, layout


def drawing(params: Params, **sampling) -> Params:
    values = {"sampling": sampling} if sampling else {}
    student = recipe(gates={"max_loss_ratio": 100.0}, epochs=1, **values)
    return params.model_copy(update={"recipes": ["student"], "train": {"student": student}})


def count(params: Params, layout: Layout, names: str, **values) -> None:
    (layout.root / "names.txt").write_text(names)
    chosen = ConceptParams.model_validate({"file": "names.txt", **values})
    concepts.run(params.model_copy(update={"concepts": chosen}), layout)


def test_counts_of_concepts_are_part_of_what_trains_a_model(world):
    params, layout = world
    stages = link_stages(layout, drawing(params, name="balanced"))
    assert stages["link-student"]["deps"] == ["data/concepts"]
    with pytest.raises(InputError, match=r"concepts.*is missing: run `flame concepts`"):
        train.run(drawing(params, name="balanced"), layout, "student")
    found = []
    for names, way in (("7\n12\n", "capped"), ("7\n", "capped"), ("7\n12\n", "capped"), ("7\n12\n", "weighted")):
        count(params, layout, names, weights={"cap": 1, "other": 0.5})
        values = {"cap": 1, "other": 0.5} if way == "capped" else {}
        train.run(drawing(params, name=way, **values), layout, "student")
        config = json.loads((layout.model("student") / "config.json").read_text())
        weights = (layout.model("student") / "model.safetensors").read_bytes()
        found.append((config["data"]["sampling"], weights))
    assert found[0] == found[2] and found[0][0] != found[1][0]
    assert found[3][1] == found[0][1] and isinstance(found[3][0], str)  # the same weights, from the sidecar


def test_a_trained_tower_tags_pictures_by_the_captions_vectors(world):
    params, layout = world
    plain = drawing(params)
    train.run(plain, layout, "student")
    images = {"tagger": {"kind": "tower", "recipe": "student"}, "threshold": -1.0, "floor": -1.0}
    names = "drawing\nnumber\nzebra\n"
    count(plain, layout, names, images=images)
    found = read_frequencies(layout.concepts)
    samples = found.counts.misalignment.samples
    assert found.counts.image.tolist() == [samples, samples, -1]  # all above -1; no caption has a zebra's vector
    assert found.counts.misalignment.tagged_image == samples and found.counts.misalignment.published == 0
    assert read_manifest(layout.concepts)["tagger"]["kind"] == "tower"
    count(plain, layout, names, images={**images, "threshold": 0.999, "floor": 0.0})
    assert (read_frequencies(layout.concepts).counts.image[:2] < samples).all()
    chosen = ConceptParams.model_validate({"file": "names.txt", "images": images})
    stages = section_stages(layout, plain.model_copy(update={"concepts": chosen}))
    assert {"data/embeddings", "data/models/student", "names.txt"} <= set(stages["concepts"]["deps"])
    prompts = {**images, "tagger": {"kind": "tower", "recipe": "student", "texts": "prompts"}}
    with pytest.raises(InputError, match="no embedding of the raw text 'drawing'"):
        count(plain, layout, names, images=prompts)


def test_a_tagger_that_draws_by_its_own_counts_is_refused(world):
    params, _ = world
    content = drawing(params, name="balanced").model_dump(mode="json")
    images = {"tagger": {"kind": "tower", "recipe": "student"}, "threshold": 0.1}
    with pytest.raises(ValueError, match="draws its samples by these counts, so neither can be first"):
        Params.model_validate(content | {"concepts": {"nouns": {}, "images": images}})
