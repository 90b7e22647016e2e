"""Every gate names the param of its threshold, likely causes, and the command to go on."""

from __future__ import annotations

import ast
import fnmatch
import logging
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from flame_core import gates
from flame_core.errors import GateError
from flame_core.gates import Check
from flame_core.graph.section_stages import SECTIONS
from flame_core.layout import Layout
from flame_core.params import (
    AdaptLLMParams,
    CaptionLMParams,
    ClusterParams,
    CodesParams,
    CodesTower,
    ConceptFitParams,
    ConceptParams,
    FeaturesParams,
    LexicalParams,
    NoiseParams,
    Params,
    PromptsParams,
    ScoresParams,
    SelectionParams,
    SelectParams,
    SemDedupParams,
    TrainParams,
    TuneParams,
)
from flame_core.remedies import REMEDIES, advice, remedy_of

ROOT = Path(__file__).parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
TAGGED = {"tagger": {"kind": "table", "path": "tags.parquet"}, "threshold": 0.5, "labels": "labels.csv"}
OPTIONAL: dict[str, Any] = {  # in dvc.yaml if params have them
    "adapt_llm": AdaptLLMParams(),
    "cluster": ClusterParams(clusters=2),
    "lexical": LexicalParams(),
    "prompts": PromptsParams(),
    "caption_lm": CaptionLMParams(recipe="flame"),
    "features": FeaturesParams.model_validate(
        {"model": {"backbone": "resnet10t", "image_size": 64, "head": "none", "init": {"source": "timm:resnet10t"}}}
    ),
    "concepts": ConceptParams.model_validate({"file": "names.txt", "images": TAGGED}),
    "concept_fit": ConceptFitParams(recipes=["flame"]),
    "codes": CodesParams(tower=CodesTower(recipe="flame"), codebook="vq"),  # the one with all checks
    "noise": NoiseParams(),
    "semdedup": SemDedupParams(clusters=2),
    "scores": ScoresParams.model_validate({"scorers": {"ours": {"kind": "tower", "recipe": "flame"}}}),
    "domains": {},
    "tune": TuneParams(recipes=["flame"]),
    "select": SelectParams(clusters=2, selections={"half": SelectionParams(share=0.5)}),
}
STAGES |= {name: SECTIONS[name](Layout.find(ROOT), section) for name, section in OPTIONAL.items()}
NAMED = sorted({name for stage in STAGES.values() for name in stage["meta"]["dagster"].get("checks", [])})
INFORMATIVE = {"caption_words", "raw_languages"}  # they never fail
_CLASSES = {"train": TrainParams, **{name: type(own) for name, own in OPTIONAL.items() if own}}
_KEY = re.compile(rf"\b(?:ingest|caption|text|train|evaluate|{'|'.join(OPTIONAL)})(?:\.[a-z_]+)+")


@pytest.mark.parametrize("name", NAMED)
def test_every_check_of_the_pipeline_has_a_remedy(name):
    assert (remedy_of(name) is None) == (name in INFORMATIVE)


def test_every_remedy_is_of_a_check():
    assert set(REMEDIES) == set(NAMED) - INFORMATIVE


@pytest.mark.parametrize("name", REMEDIES)
def test_the_params_that_a_remedy_names_exist(name):
    """caption.<kind> is written for caption.short and caption.long, and has no further parts here."""
    text = "\n".join(advice(name))
    for key in _KEY.findall(text):
        assert exists(key), key


def exists(key: str) -> bool:
    first, *rest = key.split(".")
    here: Any = _CLASSES.get(first) or Params.model_fields[first].annotation
    for part in rest:
        if not (isinstance(here, type) and issubclass(here, BaseModel)) or part not in here.model_fields:
            return False
        annotation = here.model_fields[part].annotation
        options = [annotation, *get_args(annotation)]
        here = next((each for each in options if isinstance(each, type) and issubclass(each, BaseModel)), None)
    return True


def check_names() -> set[str]:
    """The names of all checks that the code makes; a field of an f-string is written *."""
    found: set[str] = set()
    for file in (ROOT / "flame_core").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            named = [each.value for each in node.keywords if each.arg == "name"] or node.args[:1]
            if called == "Check" or (called in ("_none", "_fraction") and file.stem in ("ingest_checks", "summary")):
                found |= {name for name in map(_pattern, named) if name is not None}
    return found


def _pattern(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
    return None  # of a helper that is given the name


def test_every_check_that_the_code_makes_is_listed_and_has_a_remedy():
    """Of `*/pairs` or `recall_over_chance/*/*` one part is the check; `*_samples` is several."""
    made = check_names()
    assert {"keys_unique", "*_samples", "*/pairs", "recall_over_chance/*/*", "*_failed", "facets_differ"} <= made
    for name in made:
        parts = [part for part in name.split("/") if part != "*"]
        listed = [each for each in NAMED if any(fnmatch.fnmatchcase(each, part) for part in parts)]
        assert listed, f"{name} stands in no stage of dvc.yaml"
        for each in listed:
            assert each in INFORMATIVE or remedy_of(each) is not None, each


@pytest.mark.parametrize("name", REMEDIES)
def test_advice_has_threshold_causes_and_the_way_on(name):
    first, second, *causes, last = advice(name)
    assert first.startswith("threshold: ") and second == "likely causes, the likeliest first:"
    assert [cause.split(".")[0] for cause in causes] == [str(n) for n in range(1, len(causes) + 1)] and causes
    assert last == "then go on with `flame run`"


def test_a_source_may_have_the_name_of_a_check():
    assert remedy_of("languages/pairs") is REMEDIES["pairs"]
    assert remedy_of("recall_over_chance/de/text_to_image") is REMEDIES["recall_over_chance"]


def test_the_key_test_can_fail():
    assert exists("ingest.gates.min_kept_fraction") and not exists("ingest.gates.min_kept") and not exists("text.x.y")


def put(out: Path, *checks: Check) -> Path:
    out.mkdir()
    (out / gates.CHECKS).write_bytes(gates.to_bytes(checks))
    return out


def test_a_refusal_says_what_failed_which_param_and_what_now(tmp_path):
    out = put(tmp_path / "shards", Check("kept_fraction", False, "enough pairs are kept", 0.25, 0.5, keys=["a", "b"]))
    with pytest.raises(GateError) as caught:
        gates.require(out)
    assert str(caught.value).splitlines()[:4] == [
        f"{out} failed 1 blocking check(s):",
        "  kept_fraction: enough pairs are kept (measured 0.25, threshold 0.5); for example a, b",
        "    threshold: ingest.gates.min_kept_fraction",
        "    likely causes, the likeliest first:",
    ]
    assert str(caught.value).endswith("then go on with `flame run`")


def test_checks_with_the_same_remedy_say_it_once(tmp_path):
    directions = [Check(f"recall_over_chance/{code}/text", False, "recall", 0.9, 1.0) for code in ("en", "de")]
    out = put(tmp_path / "report", *directions, Check("languages_present", False, "x", blocking=False))
    with pytest.raises(GateError) as caught:
        gates.require(out)
    said = str(caught.value)
    assert said.count("recall_over_chance/") == 2 and said.count("evaluate.gates.min_recall_over_chance") == 1
    assert "languages_present" not in said


def test_a_check_that_is_not_known_here_is_told_all_the_same(tmp_path):
    with pytest.raises(GateError, match=r"mine: my own \(measured 1, threshold 0\)$"):
        gates.require(put(tmp_path / "labels", Check("mine", False, "my own", 1, 0)))


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (Check("x", False, "recall", 0.90000001, 1.0), "x: recall (measured 0.9, threshold 1)"),
        (Check("x", False, "some metric differs", []), "x: some metric differs (measured none)"),
        (Check("x", False, "shares", [0.25, "en 1"], 0), "x: shares (measured 0.25, en 1, threshold 0)"),
        (Check("x", False, "recall", None, 1), "x: recall (not measured, threshold 1)"),
        (Check("x", False, "all there", keys=["a"]), "x: all there; for example a"),
    ],
)
def test_only_what_a_check_has_is_told(check, said):
    assert gates.told(check) == [said]


def test_a_stage_warns_of_its_failed_checks(caplog):
    with caplog.at_level(logging.WARNING, logger="flame_core"):
        gates.warn([Check("pets/readable", False, "files can be read", 1, 0, blocking=False), Check("x", True, "y")])
    (record,) = caplog.records
    assert record.getMessage().startswith("check failed: pets/readable: files can be read (measured 1, threshold 0)\n")
    assert "cut while they were copied" in record.getMessage()


@pytest.mark.parametrize(
    ("check", "kind"),
    [
        ("pairs/readable", "readable"),  # of a source called `pairs`
        ("own/pairs", "pairs"),
        ("domain_classes/pairs", "domain_classes"),  # of a domain called `pairs`
        ("recall_over_chance/en/text", "recall_over_chance"),
        ("keys_unique", "keys_unique"),
    ],
)
def test_what_a_check_is_of_does_not_choose_its_remedy(check: str, kind: str) -> None:
    assert remedy_of(check) is REMEDIES[kind]


def test_a_check_that_is_not_known_has_none() -> None:
    assert remedy_of("new/pairs_of_words") is None
