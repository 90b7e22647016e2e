"""Names of a report's metrics in MLflow: headline metrics first, the rest in one folder; older names are read too."""

from __future__ import annotations

from flame_core.tracking.metric_names import logged_value, metric_name, named

ENGLISH = "retrieval/en/image_to_text/recall@10"


def test_names_that_mlflow_does_not_take_are_written_out():
    assert metric_name(ENGLISH) == "retrieval/en/image_to_text/recall_at_10"


def test_headline_metrics_come_first_and_everything_is_in_one_folder():
    metrics = {"classification/top1": 0.5, ENGLISH: 0.25, f"{ENGLISH}/low": 0.125, "retrieval/de/n": float("nan")}
    assert list(named(metrics, [ENGLISH, "not/measured", "retrieval/de/n"]).items()) == [
        ("headline/retrieval.en.image_to_text.recall_at_10", 0.25),
        ("whole_report/classification.top1", 0.5),
        ("whole_report/retrieval.en.image_to_text.recall_at_10", 0.25),
        ("whole_report/retrieval.en.image_to_text.recall_at_10.low", 0.125),
    ]


def test_mlflow_s_page_shows_the_folders_in_the_order_in_which_one_reads_them():
    assert sorted({"train", *(name.partition("/")[0] for name in named({ENGLISH: 1.0}, [ENGLISH]))}) == [
        "headline",
        "train",
        "whole_report",
    ]


def test_a_metric_is_found_under_its_name_and_under_that_of_earlier_versions():
    assert logged_value(named({ENGLISH: 0.25}, []), ENGLISH) == 0.25
    assert logged_value({"retrieval/en/image_to_text/recall_at_10": 0.0}, ENGLISH) == 0.0
    assert logged_value({"train/loss": 1.0}, ENGLISH) is None
