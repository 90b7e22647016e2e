"""What sources give as language codes: codes stay as they are, anything else is left out with a reason."""

from __future__ import annotations

from pathlib import Path

from flame_core.data.ledger import LedgerEntry, read_ledger
from flame_core.layout import Layout
from tests.data.drawings import png
from tests.stages.ingest.shards import read_dropped, read_samples, run_ingest, write_pair
from tests.stages.pipeline import folder_source, pipeline_params, write_pairs

WAY_OUT = "x/../../../name"


def test_what_is_no_language_code_is_left_out_and_named(layout: Layout, tmp_path: Path):
    folder = tmp_path / "a"
    write_pairs(folder, range(20))
    write_pair(folder, "both", png(100), captions={"en": "a boat", "sr@latin": "čamac", WAY_OUT: ["one", "two"]})
    write_pair(folder, "none", png(101), captions={WAY_OUT: "three", "mean": "four"})
    write_pair(folder, "field", png(102), caption="five", language="../en")
    run_ingest(pipeline_params({"s": folder_source(folder)}), layout)
    samples = {key: meta for split in read_samples(layout).values() for key, meta in split.items()}
    assert samples["s/both"]["captions"] == {"en": ["a boat"], "sr@latin": ["čamac"]}
    assert read_dropped(layout) == {"s/none": "language_code", "s/field": "language_code"}
    assert len(samples) == 21
    details = {(entry.key, entry.outcome): entry.detail for entry in read_ledger(layout.shards)}
    assert details["s/both", "changed"] == "2 captions left out: 'x/../../../name' is no language code"
    assert details["s/none", "dropped"] == "2 captions left out: 'mean', 'x/../../../name' are no language code"
    assert LedgerEntry("s", "s/both", "changed", "language_code", details["s/both", "changed"]) in read_ledger(
        layout.shards
    )
