"""Asset checks from `checks.json`: good and bad data, blocking and not, files and names that are missing."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from flame_core import gates
from flame_core.dvc_project.project import DvcProject, Stage
from flame_core.gates import Check
from flame_core.params import CaptionParams, SpectrumParams, UrlsSource
from orchestration.checks import applicable, read_checks
from orchestration.dagster_dvc.stage_meta import stage_meta
from tests.measuring import world

STAGE = Stage("ingest", "flame ingest", None, {}, (), (), ("data/shards",), "v1")
DOWNLOAD = Stage("download", "flame download", None, {}, (), (), ("data/shards",), "v1")
GOOD = [Check("keys_unique", True, "no key stands twice", 0, 0), Check("kept_fraction", True, "enough kept", 0.97, 0.5)]


def read(
    root: Path, checks: list[Check] | None, *declared: str, stage: Stage = STAGE
) -> dict[str, dg.AssetCheckResult]:
    out = root / "data" / "shards"
    out.mkdir(parents=True)
    if checks is not None:
        (out / gates.CHECKS).write_bytes(gates.to_bytes(checks))
    return {str(result.check_name): result for result in read_checks(DvcProject(root), stage, declared)}


def rows(result: dg.AssetCheckResult) -> list[dict]:
    table = result.metadata["checks"]
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(record.data) for record in table.records]


def test_good_data_pass_with_value_and_threshold(tmp_path: Path) -> None:
    results = read(tmp_path, GOOD, "keys_unique", "kept_fraction")
    assert [result.passed for result in results.values()] == [True, True]
    assert results["kept_fraction"].metadata["value"].value == 0.97
    assert results["kept_fraction"].metadata["threshold"].value == 0.5
    assert results["kept_fraction"].description == "enough kept"


@pytest.mark.parametrize(("blocking", "severity"), [(True, "ERROR"), (False, "WARN")])
def test_bad_data_fail_with_the_keys(tmp_path: Path, blocking: bool, severity: str) -> None:
    bad = Check("keys_unique", False, "no key stands twice", 2, 0, blocking, ["pictures/a", "pictures/b"])
    result = read(tmp_path, [bad], "keys_unique")["keys_unique"]
    assert (result.passed, result.severity.value) == (False, severity)
    assert "`pictures/a`" in str(result.metadata["keys"].value) and "`pictures/b`" in str(result.metadata["keys"].value)


def test_a_failed_check_says_what_failed_which_param_and_what_now(tmp_path: Path) -> None:
    bad = Check("kept_fraction", False, "fraction of pairs that were kept", 0.1234567, 0.5)
    (what, param, _, *causes, go_on) = str(read(tmp_path, [bad], "kept_fraction")["kept_fraction"].description).split(
        "\n\n"
    )
    assert what == "fraction of pairs that were kept: measured 0.123457, threshold 0.5"
    assert param == "threshold: ingest.gates.min_kept_fraction"
    assert [cause[:2] for cause in causes] == ["1.", "2.", "3."]
    assert go_on == "then materialize it again, or go on with `flame run`"


def test_a_failed_check_without_threshold_names_none(tmp_path: Path) -> None:
    bad = Check("recipes_differ", False, "some metric differs", [], blocking=False)
    result = read(tmp_path, [bad], "recipes_differ")["recipes_differ"]
    assert str(result.description).startswith("some metric differs: measured none\n\n")
    assert [(row["measured"], row["threshold"]) for row in rows(result)] == [("none", "")]


@pytest.mark.parametrize(
    ("stage", "names"), [(DOWNLOAD, ("a/pairs", "b/pairs")), (STAGE, ("pairs/a", "pairs/b"))], ids=["source", "other"]
)
def test_one_check_a_source_is_shown_as_one_that_fails_where_one_does(
    tmp_path: Path, stage: Stage, names: tuple[str, str]
) -> None:
    found = [Check(names[0], True, "lists pairs", 4, 1), Check(names[1], False, "lists pairs", 0, 1, keys=["b"])]
    result = read(tmp_path, found, "pairs", stage=stage)["pairs"]
    assert not result.passed
    assert str(result.description).startswith(f"lists pairs: measured 0, threshold 1 ({names[1]})\n\n")
    assert [row["check"] for row in rows(result)] == [names[1], names[0]]  # what failed comes first


def test_a_source_that_is_called_as_a_check_fails_no_other(tmp_path: Path) -> None:
    found = [Check("pairs/pairs", True, "lists pairs", 4, 1), Check("pairs/readable", False, "is read", 1, 0, False)]
    results = read(tmp_path, found, "pairs", "readable", stage=DOWNLOAD)
    assert {name: result.passed for name, result in results.items()} == {"pairs": True, "readable": False}


def test_a_warning_does_not_hide_behind_a_blocking_check_that_passed(tmp_path: Path) -> None:
    found = [Check("x/a", True, "d"), Check("x/b", False, "d", blocking=False)]
    result = read(tmp_path, found, "x")["x"]
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_a_blocking_failure_that_is_not_listed_fails_the_asset(tmp_path: Path) -> None:
    with pytest.raises(dg.Failure, match=r"does not list.*: keys_unique"):
        read(tmp_path, [Check("keys_unique", False, "no key stands twice", 2, 0)], "kept_fraction")


def test_a_listed_check_with_nothing_to_look_at_passes_and_a_renamed_one_warns(tmp_path: Path) -> None:
    assert read(tmp_path / "one", GOOD, "keys_unique", "kept_fraction", "long_failed")["long_failed"].passed
    renamed = read(tmp_path / "two", GOOD, "keys_unique", "kept_share")["kept_share"]
    assert not renamed.passed
    assert "kept_fraction" in str(renamed.description)


def test_counts_by_language_are_shown_in_words(tmp_path: Path) -> None:
    counted = Check("raw_languages", True, "raw captions by language", {"en": 90, "de": 12}, blocking=False)
    words = Check("caption_words", True, "words", {"short": {"min": 1, "mean": 8 / 3}}, blocking=False)
    empty = Check("kept_fraction", True, "kept", {}, blocking=False)
    results = read(tmp_path, [counted, words, empty], "raw_languages", "caption_words", "kept_fraction")
    assert [rows(result)[0]["measured"] for result in results.values()] == [
        "de 12, en 90",
        "short (mean 2.66667, min 1)",
        "none",
    ]


def test_an_absent_out_is_not_measured(tmp_path: Path) -> None:
    assert not read_checks(DvcProject(tmp_path), STAGE, ["keys_unique"])[0].passed


def test_checks_of_captions_that_are_not_made_are_not_listed(tmp_path: Path) -> None:
    named = ["samples_present", "short_failed", "long_failed", "long_copied", "caption_words"]
    stages = {
        name: Stage(name, f"flame {name}", None, {"dagster": {"group": "text", "checks": named}}, (), (), (), "v1")
        for name in ("caption", "other")
    }
    params = world.params(tmp_path)
    assert applicable(stages, params) == stages
    without = params.model_copy(update={"caption": CaptionParams(long=None)})
    found = applicable(stages, without)
    assert stage_meta(found["caption"]).checks == ("samples_present", "short_failed", "caption_words")
    nothing = params.model_copy(update={"caption": CaptionParams(short=None, long=None)})
    assert stage_meta(applicable(stages, nothing)["caption"]).checks == ("samples_present",)
    assert stage_meta(found["caption"]).group == "text" and found["other"] == stages["other"]


def test_checks_of_addresses_and_spectra_are_listed_if_params_ask_for_these(tmp_path: Path) -> None:
    named = {"download": ["pairs", "success"], "evaluate@plain": ["languages_present", "spectrum_rows"]}
    stages = {
        name: Stage(name, "flame", None, {"dagster": {"group": "data", "checks": checks}}, (), (), (), "v1")
        for name, checks in named.items()
    }
    params = world.params(tmp_path)
    found = [stage_meta(stage).checks for stage in applicable(stages, params).values()]
    assert found == [("pairs",), ("languages_present",)]
    evaluate = params.evaluate.model_copy(update={"spectrum": SpectrumParams()})
    sources = {"list": UrlsSource(kind="urls", path="list.csv")}
    assert applicable(stages, params.model_copy(update={"sources": sources, "evaluate": evaluate})) == stages
