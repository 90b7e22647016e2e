"""A recipe that could only fail later is refused before anything is computed, by recipe, file and key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import pytest

from flame_core.digest import write_json
from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.objectives import term_classes
from flame_core.objectives.term import Needs, Term
from flame_core.params import Params, PrototypesParams, SentenceParams, TermParams, parse_params, read_yaml
from flame_core.params.objectives import OBJECTIVES
from flame_core.params.recipe_files import recipe_file
from flame_core.pipeline import run_pipeline
from flame_core.training import recipe_check
from flame_core.training.recipe_check import link_faults, recipe_faults, require_linked_recipes, require_recipe

ROOT = Path(__file__).parents[2]


class AskingParams(TermParams):
    name: Literal["asking"] = "asking"
    sidecars: tuple[str, ...] = ()
    reads: tuple[str, ...] = ("z",)


class Asking(Term):
    @classmethod
    def needs(cls, params):
        return Needs(reads=frozenset(params.reads), sidecars=params.sidecars)


@pytest.fixture(autouse=True)
def asking(monkeypatch):
    monkeypatch.setitem(term_classes(), "asking", Asking)


@pytest.fixture
def layout(tmp_path) -> Layout:
    (tmp_path / "recipes/linked").mkdir(parents=True)
    (tmp_path / "recipes/flame.yaml").write_text("{}\n")
    (tmp_path / "recipes/linked/student.yaml").write_text("{}\n")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  cluster: {cmd: a, outs: [data/sidecars/labels, data/keys.parquet: {cache: false}]}\n"
        "  train: {cmd: b, outs: ['data/models/${item.recipe}']}\n"
    )
    return Layout.find(tmp_path)


def params(*terms: TermParams, **links) -> Params:
    """The demo's params with a recipe `student` of a tiny tower, with these terms and links."""
    content = read_yaml(ROOT / "params.yaml")
    made = parse_params(content, Path("params.yaml"), ROOT / "recipes")
    student = type(made.train["flame"]).model_validate({**made.train["flame"].model_dump(), **links})
    trains = {"flame": made.train["flame"], "student": student.model_copy(update={"terms": list(terms)})}
    return made.model_copy(update={"recipes": ["flame", "student"], "train": trains})


def parsed_term(values: dict) -> TermParams:
    return OBJECTIVES[values["name"]].model_validate(values)


def found(made: Params) -> list[tuple[str, str]]:
    return [(".".join(fault.key), fault.message) for fault in recipe_faults(made.train["student"])]


PRETRAINED = ("lit", "sharelock", "sail")


def test_the_shipped_recipes_have_no_faults(layout):
    for name in sorted(path.stem for path in (ROOT / "recipes").glob("**/*.yaml")):
        content = read_yaml(ROOT / "params.yaml") | {
            "recipes": [*{name, "flame", "tinyclip-auto", "tinyclip-auto-50"}],  # which others need
            "cluster": {"clusters": 8},
            "noise": {},
        }
        content |= {"codes": {"tower": {"path": "a-model"}}}
        content |= {"select": {"clusters": 8, "selections": {"quarter": {"share": 0.25}}}}
        content["text"] |= {"train_kinds": ["raw", "short", "long"], "sentence": {"final_norm": True}}
        content |= {"lexical": {}, "prompts": {"kinds": ["raw"]}}
        content["train"] |= {"by_recipe": {"p-former-align": {"kinds": ["raw"]}}}  # short captions have three facets
        if name in PRETRAINED:  # which the demo's small tower and crops do not suit
            own = read_yaml(recipe_file(ROOT / "recipes", name))
            content |= {"train": {}, "recipes": [name], "features": {"model": own["model"]}}
        made = parse_params(content, Path("params.yaml"), ROOT / "recipes")
        assert list(recipe_faults(made.train[name])) == []
        assert list(link_faults(made, layout, name)) == []


def test_a_term_and_the_recipe_name_the_same_sidecars():
    ((key, message),) = found(params(AskingParams(sidecars=("labels",))))
    assert key == "sidecars" and "the term asking reads the sidecar 'labels', which the recipe does not" in message
    assert "write `sidecars: {labels: data/sidecars/labels}`" in message
    ((key, message),) = found(params(sidecars={"labels": "data/sidecars/labels"}))
    assert key == "sidecars" and "no term of the recipe reads the sidecar 'labels'" in message
    assert found(params(AskingParams(sidecars=("labels",)), sidecars={"labels": "nowhere"})) == []


def test_prototypes_stand_beside_an_objective():
    recipe = params().train["student"]
    beside = recipe.model_copy(
        update={"terms": [PrototypesParams()], "sidecars": {"clusters": "data/sidecars/clusters"}}
    )
    assert list(recipe_faults(beside)) == []
    only = beside.model_copy(update={"terms": [], "objective": PrototypesParams()})
    assert [fault.key for fault in recipe_faults(only)] == [("objective", "name")]


def test_a_term_reads_what_the_backbone_has():
    model = {"backbone_options": {"img_size": 16, "patch_size": 8, "class_token": False, "embed_dim": 24, "depth": 1,
                                  "num_heads": 2}, "image_size": 16}  # fmt: skip
    reads = AskingParams(reads=("cls",))
    ((key, message),) = found(params(reads, model=model))
    assert key == "terms" and "the term asking reads the CLS token, but the backbone VisionTransformer" in message
    model["backbone_options"] = {**model["backbone_options"], "class_token": True}
    assert found(params(reads, model=model)) == []
    ((key, message),) = found(params(AskingParams(reads=("dreams",)), model=model))
    assert key == "terms" and "reads dreams, which no tower has" in message


@pytest.mark.parametrize(
    ("model", "key", "message"),
    [
        ({"backbone": "vit_bsae_patch16_clip_224"}, "model.backbone", "did you mean 'vit_base_patch16_clip_224'?"),
        ({"backbone_options": {"dept": 3}}, "model.backbone_options", "unexpected keyword argument 'dept'"),
        ({"image_size": 225}, "model.image_size", "225"),
        ({"backbone": "resnet18"}, "model.backbone", "name trained weights in model.init"),
        (
            {"backbone_options": {"depth": 2, "embed_dim": 24, "num_heads": 2}, "facet_blocks": 3},
            "model.facet_blocks",
            "has 2 blocks",
        ),
    ],
)
def test_a_backbone_that_cannot_be_made(model, key, message):
    made = params(objective={"name": "facet_sigmoid"} if "facet_blocks" in model else {"name": "infonce"}, model=model)
    ((where, said),) = found(made)
    assert where == key and message in said


def test_multipliers_are_of_weights_that_the_recipe_has():
    rates = {"optimizer": {"multipliers": {"image.backbone.blocks": 0.1}}}
    assert found(params(**rates)) == []
    ((key, message),) = found(params(optimizer={"multipliers": {"text.tokens": 0.0}}))
    assert key == "optimizer.multipliers" and "no weight's name begins with 'text.tokens'" in message
    tower = {"width": 16, "depth": 1, "heads": 2, "max_tokens": 16}
    assert found(params(optimizer={"multipliers": {"text.tokens": 0.0}}, text_tower=tower)) == []


WORDS = {"objective": {"name": "lexical"}, "sidecars": {"lexical": "data/sidecars/lexical"}}
LEXICAL = {
    "backbone_options": {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2},
    "image_size": 16,
    "head": "lexical",
}


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ({"name": "multi_positive_sigmoid"}, "the texts are vectors: leave it out, or set lora"),
        ({"name": "infonce"}, "the texts are vectors: leave it out, or set lora"),
        ({"name": "cosine"}, "the texts are vectors: leave it out, or set lora"),
        ({"name": "prototypes", "mode": "direct"}, "take mode pbt"),
        ({"name": "feature"}, "match pooled or cls"),
    ],
)
def test_words_are_not_compared_with_vectors(term, message):
    links = {"clusters": "data/sidecars/clusters"} if term["name"] == "prototypes" else {}
    taught = {"teacher": {"path": "teacher"}} if term["name"] == "feature" else {}
    own = WORDS | {"sidecars": WORDS["sidecars"] | links, "model": LEXICAL, **taught}
    ((key, said),) = found(params(parsed_term(term), **own))
    assert key == "terms" and said.startswith(f"the term {term['name']}: ") and message in said


def test_words_that_the_llm_gives_are_compared_with_words():
    own = WORDS | {"model": LEXICAL, "lora": {}, "reading": "sentence"}
    assert found(params(parsed_term({"name": "infonce"}), **own)) == []


TOWER = {"width": 16, "depth": 1, "heads": 2, "max_tokens": 16}


@pytest.mark.parametrize("side", [{"text_tower": TOWER}, {"text_projection": {}}])
def test_a_text_side_that_no_term_reads(side):
    own = {"objective": {"name": "simclr"}, **side}
    ((key, message),) = found(params(**own))
    assert key == next(iter(side)) and "no term reads what it gives" in message
    assert found(params(parsed_term({"name": "cosine"}), **own)) == []


def test_texts_have_as_many_numbers_as_pictures_that_stay_where_they_are():
    model = {"backbone": "vit_tiny_patch16_224", "backbone_options": {"img_size": 32}, "image_size": 32, "head": "none"}
    own = {"model": model, "objective": {"name": "infonce"}}
    ((key, message),) = found(params(**own, text_projection={"dim": 64}))
    assert key == "text_projection.dim" and "64, and model.head none" in message and message.endswith("set it to 192")
    assert found(params(**own, text_projection={"dim": 192})) == []
    assert found(params(**own, text_projection={})) == []  # the LLM's, which is not known here


def test_words_do_not_come_from_a_text_tower():
    ((key, _),) = found(params(model=LEXICAL, text_tower=TOWER, **WORDS))
    assert key == "text_tower"


def test_a_head_that_only_its_own_average_teaches():
    ((key, message),) = found(params(objective={"name": "self_distillation"}))
    assert key == "objective.name" and "its head would not learn" in message
    assert found(params(parsed_term({"name": "cosine"}), objective={"name": "self_distillation"})) == []
    assert found(params(objective={"name": "simclr"})) == []  # a backbone, with which another recipe may begin


def test_words_are_compared_by_a_head_of_words():
    ((key, message),) = found(params(parsed_term({"name": "lexical"}), sidecars={"lexical": "data/sidecars/lexical"}))
    assert key == "terms" and "set model.head to lexical" in message


@pytest.mark.parametrize("side", [{"text_tower": TOWER}, {"text_projection": {}}])
def test_centroids_of_the_llm_are_not_compared_with_a_space_of_its_own(side):
    term = parsed_term({"name": "prototypes", "mode": "direct"})
    ((key, message),) = found(params(term, sidecars={"clusters": "data/sidecars/clusters"}, **side))
    assert key == "terms" and f"{next(iter(side))} takes pictures into another space: take mode pbt" in message


@pytest.mark.parametrize("facets", [False, True])
def test_rotary_towers_are_no_plain_vit(facets):
    model = {"backbone": "eva02_tiny_patch14_224", "backbone_options": {"img_size": 28}, "image_size": 28}
    own = (
        {"model": model | {"facet_blocks": "all"}, "objective": {"name": "facet_sigmoid"}}
        if facets
        else {"model": model}
    )
    terms = [] if facets else [parsed_term({"name": "attentive_mask", "mode": "random", "cell": 1})]
    ((_, message),) = found(params(*terms, **own))
    assert "Eva has no forward pass of timm's VisionTransformer" in message


def test_an_image_tower_that_no_term_reads():
    own = {
        "objective": {"name": "text_distillation"},
        "text_projection": {"dim": 12},
        "teacher": {"model": "transformers:clip"},
    }
    ((key, message),) = found(params(**own))
    assert key == "objective.name" and "no term reads pictures" in message


@pytest.mark.parametrize(
    "term", [{"name": "byol", "feature": "pooled"}, {"name": "prototypes"}, {"name": "prototypes", "mode": "direct"}]
)
def test_a_head_with_batch_statistics_needs_two_pictures(term):
    mask = [{"name": "attentive_mask", "cell": 1}] if term["name"] == "byol" else []
    links = {"sidecars": {"clusters": "data/sidecars/clusters"}} if term["name"] == "prototypes" else {}
    terms = [parsed_term(each) for each in (*mask, term)]
    said = [message for _, message in found(params(*terms, batch_size=1, **links))]
    assert len(said) == (term.get("mode") != "direct") and all("set batch_size to 2 or more" in each for each in said)
    assert found(params(*terms, batch_size=2, **links)) == []


def links_of(made: Params, layout: Layout) -> list[tuple[str, str]]:
    return [(".".join(fault.key), fault.message) for fault in link_faults(made, layout, "student")]


def test_what_neither_exists_nor_is_made_by_a_stage(layout):
    made = params(sidecars={"labels": "data/sidecars/labels", "weights": "data/sidecars/weights"})
    ((key, message),) = links_of(made, layout)
    assert key == "sidecars.weights" and "no stage of dvc.yaml makes it" in message
    assert links_of(params(selection="data/keys.parquet"), layout) == []
    ((key, message),) = links_of(params(selection="keys.parquet"), layout)
    assert key == "selection" and f"{layout.root / 'keys.parquet'} does not exist" in message
    (layout.root / "keys.parquet").touch()
    assert links_of(params(selection="keys.parquet"), layout) == []
    assert [key for key, _ in links_of(params(teacher={"path": "models/old"}), layout)] == ["teacher"]
    assert links_of(params(teacher={"path": "data/models/flame"}), layout) == []


@pytest.mark.parametrize(
    ("sampling", "section"),
    [
        ({"name": "weighted"}, "concepts"),
        ({"name": "balanced"}, "concepts"),
        ({"name": "soft_cap", "scores": "data/sidecars/score-clip", "penalty": 0.2}, "scores"),
    ],
)
def test_what_a_section_would_make_names_it(layout, sampling, section):
    ((key, message),) = links_of(params(sampling=sampling), layout)
    assert key == "sampling" and f"only if params have a section `{section}`: write it" in message


def teacher(layout: Layout, made: Params, **changes) -> str:
    llm = {"name": made.llm.name, "source": made.llm.source, "random_seed": None, "digest": "d"}
    folder = layout.root / "old"
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", {"llm": llm, "layer": made.text.layer, "hidden": 576, **changes})
    return str(folder)


def test_a_teacher_of_another_llms_space(layout):
    plain = params()
    path = teacher(layout, plain)
    assert links_of(params(teacher={"path": path}), layout) == []
    teacher(layout, plain, layer=7)
    ((key, message),) = links_of(params(teacher={"path": path}), layout)
    assert key == "teacher" and "another LLM's space: the teacher's layer is 7, and these params have 29" in message
    teacher(layout, plain, llm={"name": "another", "source": "path:x"})
    ((_, message),) = links_of(params(teacher={"path": path}), layout)
    assert "llm.name is 'another'" in message and "llm.source is 'path:x'" in message
    (layout.root / "old/config.json").write_text("[")
    assert "config.json is damaged" in links_of(params(teacher={"path": path}), layout)[0][1]


def test_a_teacher_of_other_embeddings(layout):
    """Same LLM by name and source, but another file of it: only the embeddings tell."""
    plain = params()
    made = params(teacher={"path": teacher(layout, plain)})
    llm = {"name": made.llm.name, "source": made.llm.source, "random_seed": None, "digest": "other"}
    layout.train_embeddings.mkdir(parents=True)
    manifest = {"llm": llm, "layer": made.text.layer, "hidden": 576}
    write_json(layout.train_embeddings / "manifest.json", manifest)
    assert "another LLM's space than these embeddings" in links_of(made, layout)[0][1]
    write_json(
        layout.train_embeddings / "manifest.json", {**manifest, "llm": {**llm, "digest": "d"}, "center": "whiten"}
    )
    assert links_of(made, layout) == []  # a model's config does not always say
    teacher(layout, plain, center="global")
    assert "the teacher has 'global', the embeddings have 'whiten'" in links_of(made, layout)[0][1]
    write_json(layout.train_embeddings / "manifest.json", {**manifest, "layer": 3})  # made anew before the training
    assert links_of(made, layout) == []


def test_a_teacher_of_another_reading(layout):
    made = params(teacher={"recipe": "flame"}, reading="sentence")
    made = made.model_copy(update={"text": made.text.model_copy(update={"sentence": SentenceParams(layer=3)})})
    assert (
        "the teacher flame reads layer 29 of the LLM (facets), and this recipe layer 3" in links_of(made, layout)[0][1]
    )
    same = made.text.model_copy(update={"sentence": SentenceParams()})
    assert links_of(made.model_copy(update={"text": same}), layout) == []


def test_a_source_of_weights_that_does_not_fit(layout):
    def of(size: int, **link) -> Params:
        options = {"img_size": 32, "patch_size": 8, "embed_dim": size, "depth": 2, "num_heads": size // 64}
        made = params(model={"backbone_options": options, "image_size": 32}, inherit=link)
        plain = made.train["flame"].model_copy(update={"model": made.train["student"].model})
        return made.model_copy(update={"train": made.train | {"flame": plain}})

    assert links_of(of(64, recipe="flame"), layout) == []
    large, small = of(128, recipe="flame"), of(64, recipe="flame")
    mixed = large.model_copy(update={"train": large.train | {"flame": small.train["flame"]}})
    ((key, message),) = links_of(mixed, layout)
    assert key == "inherit" and message.startswith("the tower is larger than its source: backbone.cls_token")
    plain = params()
    path = teacher(layout, plain, layer=7, recipe={"model": {"backbone_options": {"depth": 3}}})
    ((key, depth), (_, layer)) = links_of(of(64, path=path, blocks=[0, 7]), layout)
    assert key == "inherit.blocks" and depth.startswith("[0, 7]: name 2") and "the source's layer is 7" in layer
    assert links_of(of(64, path=path, projector=False), layout) == []


def test_an_error_names_recipe_file_and_key_of_every_mistake(layout):
    made = params(AskingParams(sidecars=("labels",), reads=("dreams",)), selection="keys.parquet")
    with pytest.raises(ParamsError) as caught:
        require_linked_recipes(made, layout, layout.recipes)
    file = layout.recipes / "linked/student.yaml"
    assert [line.split(": ")[:2] for line in str(caught.value).splitlines()] == [
        [str(file), "sidecars"], [str(file), "terms"], [str(file), "selection"]
    ]  # fmt: skip
    with pytest.raises(ParamsError, match=r"linked/student\.yaml: sidecars: the term asking"):
        require_recipe(made, layout, "student")


def test_a_run_is_refused_at_its_start_and_a_plain_one_looks_at_nothing(tmp_path, monkeypatch):
    for name in ("dvc.yaml", ".dvcignore"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "recipes/linked").mkdir(parents=True)
    for name in ("flame", "flame-raw", "clip", "clip-sigmoid"):
        (tmp_path / f"recipes/{name}.yaml").write_bytes((ROOT / f"recipes/{name}.yaml").read_bytes())
    (tmp_path / "recipes/linked/student.yaml").write_text("selection: nowhere.parquet\n")
    own = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(own.replace("recipes: [flame]", "recipes: [flame, student]"))
    with pytest.raises(ParamsError, match=r"student\.yaml: selection: .*nowhere\.parquet does not exist"):
        run_pipeline(Layout.find(tmp_path), [], ["train.epochs=1"], None)
    assert not (tmp_path / ".flame").exists()
    (tmp_path / "params.yaml").write_text(own)
    monkeypatch.setattr("flame_core.repro.run.reproduce", lambda root, targets: 0)
    monkeypatch.setitem(sys.modules, recipe_check.__name__, None)
    assert run_pipeline(Layout.find(tmp_path), [], [], None) == 0
