"""What a list is expected to give is told by `flame plan`, and what it lacks by `flame params check`."""

from __future__ import annotations

from pathlib import Path

from flame_core.data.addresses.expected import expected
from flame_core.layout import Layout
from flame_core.params import UrlsSource
from flame_core.planning.plan import address_sections
from flame_core.preflight.data_look import look
from flame_core.preflight.sources import source_faults
from tests.stages.pipeline import pipeline_params


def write(path: Path, rows: int) -> None:
    path.write_text("".join(f"http://a.org/{n}\tc\n" for n in range(rows)))


def test_pictures_time_and_whose_figures_they_are():
    section = expected(3_300_000, UrlsSource(kind="urls", path="x"), workers=8)
    assert section["pictures"] == "2,343,000 to 2,673,000 expected"  # 71 and 81 % of them
    assert "81% of CC3M, December 2022" in section["basis"]
    assert section["received"].startswith("330.3 GB")  # 77 % of them, 130 kB each
    assert section["time"].startswith("43 min,")  # 8 * 64 connections / 0.4 s = 1,280/s
    few = expected(3_300_000, UrlsSource(kind="urls", path="x", max_samples=1000), workers=1)
    assert few["addresses"] == "1,000"


def test_the_plan_and_the_check_of_params_count_the_list(tmp_path: Path):
    write(tmp_path / "list.tsv", 10_001)
    layout = Layout.find(tmp_path)
    source = {"kind": "urls", "path": "list.tsv", "columns": ["url", "caption"]}
    params = pipeline_params({"web": source})
    assert address_sections(params, layout)["addresses: web"]["addresses"] == "10,001"
    assert look(params, layout).pairs == 7701
    (fault,) = (fault for fault in source_faults(params, layout) if fault.key[0] == "sources")
    assert fault.key == ("sources", "web", "contact") and "10,001 addresses" in fault.message


def test_lists_that_are_not_there_are_named(tmp_path: Path):
    write(tmp_path / "list.tsv", 3)
    layout = Layout.find(tmp_path)
    opt_out = {"lists": ["lists.txt"]}
    missing = {"kind": "urls", "path": "lst.tsv", "columns": ["url", "caption"]}
    faults = list(
        source_faults(pipeline_params({"a": missing, "b": {**missing, "path": "list.tsv", "opt_out": opt_out}}), layout)
    )
    told = {fault.key: fault.message for fault in faults if fault.key[0] == "sources"}
    assert "did you mean 'list.tsv'?" in told["sources", "a", "path"]
    assert "lists.txt does not exist" in told["sources", "b", "opt_out", "lists"]
