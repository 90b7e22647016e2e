"""Tokens and cost of captions that a server writes."""

from __future__ import annotations

from flame_core.captions.server.captioner import LEDGERS, write_ledger
from flame_core.captions.server.tokens import server_sections
from tests.stages.test_caption import make_params

SHORT = {"captioner": "server", "model": "some/vlm", "prompt": "Say what {caption} shows", "max_new_tokens": 50}


def sections(tmp_path, **changes):
    params = make_params(short={**SHORT, **changes})
    return server_sections(params, tmp_path, 980_000, 12.0, lambda text: len(text.split()), 16)


def test_tokens_are_assumed_from_words_and_the_size_of_pictures_and_have_a_cost(tmp_path):
    found = sections(tmp_path, price={"input": 0.5, "output": 2.0, "currency": "EUR"})
    (title,) = found
    assert title == "captions: short, by some/vlm"
    assert found[title]["requests"] == "1,000,000"  # with the held-out fiftieth
    read = 10 + 3 + 12 + (512 / 28) ** 2  # template, prompt, raw caption, picture
    assert found[title]["tokens read"] == f"{1e6 * read:,.0f} ({read:,.0f} per request)"
    assert found[title]["tokens written"] == "50,000,000 (50 per answer)"
    assert found[title]["cost"].startswith(f"EUR {read * 0.5 + 50 * 2.0:,.2f}, ")
    assert found[title]["time"].startswith(f"{1e6 * 2 / 16 / 3600:,.0f} h, if 16 requests")
    assert "cost" not in sections(tmp_path)[title]


def test_a_text_and_a_coarse_picture_take_fewer(tmp_path):
    (text,) = sections(tmp_path, picture=False).values()
    (low,) = sections(tmp_path, detail="low").values()
    assert (text["tokens read"], low["tokens read"]) == (
        "25,000,000 (25 per request)",
        "110,000,000 (110 per request)",
    )


def test_answers_that_are_there_are_the_better_guess(tmp_path):
    (tmp_path / LEDGERS / "train").mkdir(parents=True)
    rows = [
        {"row": n, "key": f"k{n}", "kind": kind, "outcome": "ok", "prompt_tokens": read, "completion_tokens": written}
        for n, (kind, read, written) in enumerate([("short", 300, 10), ("short", 500, 20), ("long", 9, 9)])
    ]
    write_ledger(tmp_path / LEDGERS / "train/00000.parquet", [*rows, {"kind": "short", "outcome": "failed"}])
    (found,) = sections(tmp_path).values()
    assert (found["tokens read"], found["basis"]) == (
        "400,000,000 (400 per request)",
        "means of 2 answers that are there",
    )
    assert found["tokens written"] == "15,000,000 (15 per answer)"


def test_no_server_no_section(tmp_path):
    assert server_sections(make_params(), tmp_path, 10, 12.0, len, 16) == {}
