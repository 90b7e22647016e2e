"""The page of a search holds its pictures, escapes what is foreign, and fetches nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.model.locate import model_of_run
from flame_core.search.folder_index import embed_folder
from flame_core.search.result_page import result_page
from tests.data.drawings import png
from tests.measuring import world
from tests.search.runs import ask_picture, ask_text, run_here


def test_a_page_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    params, layout = run_here(tmp_path, monkeypatch)
    model = model_of_run(params, layout, "plain")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        (folder / f"<b>{number}.png").write_bytes(png(number))
    embed_folder(layout, model, folder)
    (folder / "<b>0.png").unlink()
    found = ask_text(params, layout, model, "Eine grüne Sache.", index="pictures")
    page = result_page("<script>alert(1)</script>", None, model, found)
    assert page.count("data:image/jpeg") == 2 and "No such file" in page
    assert "<script" not in page and "&lt;script&gt;" in page and "&lt;b&gt;1.png" in page
    assert 'src="http' not in page and "default-src 'none'" in page
    assert str(found.nearness).split("(")[0] in page


def test_a_page_of_a_picture_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    params, layout = run_here(tmp_path, monkeypatch)
    model = model_of_run(params, layout, "plain")
    (tmp_path / "asked.jpg").write_bytes(world.jpeg(2))
    found = ask_picture(params, layout, model, tmp_path / "asked.jpg", top=4)
    page = result_page("asked.jpg", world.jpeg(2), model, found)
    assert page.count("data:image/jpeg") == 1 + 4
    assert f"A {world.COLOURS[2]} thing." in page
