"""`flame forget` on small projects: nothing of a sample is left, nothing else changes, and nothing brings it back."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from flame_core.captions.server.answers import Answer, Answers, answers_file
from flame_core.data.forgotten import Forgotten, ForgottenSample, read_forgotten, write_forgotten
from flame_core.data.ledger import read_ledger
from flame_core.data.shards import read_index
from flame_core.digest import bytes_sha256
from flame_core.errors import ParamsError
from flame_core.forgetting import forget as flow
from flame_core.forgetting.forget import forget
from flame_core.forgetting.requests import read_requests
from flame_core.inline_pictures import square_view, thumbnail
from flame_core.layout import Layout
from flame_core.params import CaptionParams, Params
from flame_core.search.stored_vectors import StoredVectors
from flame_core.stages import caption, download, ingest
from tests.data.drawings import drawing, encoded, png
from tests.forgetting.small_project import CAPTIONS, asked, found_in, picture_of, run
from tests.stages.pipeline import folder_source, pipeline_params, tree, write_pairs

pytestmark = pytest.mark.usefixtures("one_worker")


def test_nothing_of_it_is_left_and_nothing_else_changes(project: tuple[Params, Layout]):
    params, layout = project
    key, said = "s/0007", CAPTIONS.format(7).encode()
    (layout.data / "reports/flame").mkdir(parents=True)
    (layout.data / "reports/flame/report.html").write_text(f"<img alt='x'><b>{CAPTIONS.format(7)}</b>")
    (layout.data / "reports/flame/metrics.json").write_text('{"loss": 1}')
    _, jpeg = picture_of(layout, key)
    needles = (said, jpeg[40:], png(7)[40:])
    assert {"data", ".flame"} <= {name.split("/")[0] for name in found_in(layout.root, *needles)}
    before, captions = tree(layout.shards), tree(layout.captions)
    report = run(params, layout, key)
    assert set(report.found.samples) == {key} and not report.unfinished
    assert report.found.samples[key].sources == {"s: 0007.png, and where its captions stand"}
    assert found_in(layout.root, *needles) == []
    assert not (layout.data / "reports/flame/report.html").exists()
    assert (layout.data / "reports/flame/metrics.json").exists()
    after = tree(layout.shards)
    index = read_index(layout.shards)
    assert len(index) == 59 and key not in {row.key for row in index}
    tars = {name for name in before if name.endswith(".tar")}
    assert sum(before[name] != after.get(name) for name in tars) == 1  # its own shard
    assert sum(name not in tree(layout.captions) for name in captions) == 1
    entry = next(entry for entry in read_ledger(layout.shards) if entry.reason == "forgotten")
    assert (entry.source, entry.count) == ("s", 1)
    caption.run(params, layout)
    assert found_in(layout.root, *needles) == []


def test_what_another_branch_has_forgotten_is_forgotten_here_too(
    project: tuple[Params, Layout], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Git takes one of two files that both branches have written."""
    params, layout = project
    run(params, layout, "s/0007")
    ours = Forgotten(salt="of another file")
    theirs = [
        ForgottenSample("s/0008", date="2027-05-03", reason="a hash list", held=("what they had",)),
        ForgottenSample(sha256=(bytes_sha256(png(9)),)),
        ForgottenSample(phash="0123456789abcdef"),
        ForgottenSample(addresses=(ours.salted("https://a.example/b.jpg"),)),
    ]
    write_forgotten(tmp_path / "theirs", theirs, ours.salt)
    forget(params, layout, read_requests(tmp_path / "theirs"), "merge", dry_run=False)
    known = read_forgotten(layout.opt_out)
    assert {row.key for row in known.rows} == {"s/0007", "s/0008", "s/0009", None}
    assert known.hashes == {0x0123456789ABCDEF}
    other = next(row for row in known.rows if row.key == "s/0008")
    assert (other.date, other.reason) == ("2027-05-03", "a hash list")
    assert other.held == ("what they had",)  # data that are gone: no search finds again who saw it
    assert not any(row.addresses for row in known.rows)
    assert not {"s/0007", "s/0008", "s/0009"} & {row.key for row in read_index(layout.shards)}
    assert "1 rows of the other file are addresses hashed with its own salt: ask for these again" in caplog.text


def test_branches_that_share_a_salt_share_hashes_of_addresses(
    project: tuple[Params, Layout], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    params, layout = project
    run(params, layout, "s/0007")
    known = read_forgotten(layout.opt_out)
    address = "https://a.example/b.jpg"
    write_forgotten(tmp_path / "theirs", [ForgottenSample(addresses=(known.salted(address),))], known.salt)
    forget(params, layout, read_requests(tmp_path / "theirs"), "merge", dry_run=False)
    assert read_forgotten(layout.opt_out).names_address(address) and "its own salt" not in caplog.text


def test_it_never_comes_back(project: tuple[Params, Layout], tmp_path: Path):
    params, layout = project
    run(params, layout, "s/0007")
    (tmp_path / "pairs/again.png").write_bytes(png(7))  # the same picture by another name
    (tmp_path / "pairs/again.txt").write_text("said in other words")
    (tmp_path / "pairs/0007.png").write_bytes(png(99))  # another picture by the same name
    for stage in (download, ingest):
        stage.run(params, layout)
    keys = {row.key for row in read_index(layout.shards)}
    assert len(keys) == 59 and keys.isdisjoint({"s/0007", "s/again"})
    assert json.loads((layout.raw / "s/source.json").read_text())["forgotten"] == 2
    assert found_in(layout.root, b"said in other words") == []


def test_a_dry_run_changes_nothing(project: tuple[Params, Layout]):
    params, layout = project
    before = tree(layout.root)
    report = run(params, layout, "s/0007", "s/nobody", dry_run=True)
    assert tree(layout.root) == before
    assert list(report.found.samples) == ["s/0007"] and report.found.unmatched.keys == {"s/nobody"}
    assert any(name.endswith(".tar") for name in report.purged.files) and report.purged.units


def test_by_digest_and_by_hash(project: tuple[Params, Layout], tmp_path: Path):
    params, layout = project
    rows = {row.key: row for row in read_index(layout.shards)}
    scans = [pq.read_table(path) for path in (layout.work / "ingest").glob("*/scan.parquet")]
    hashes = {row["key"]: row["hash"] for table in scans for row in table.to_pylist()}
    report = run(params, layout, rows["s/0003"].sha256.upper(), f"p:{hashes['s/0004']:016x}")
    assert set(report.found.samples) == {"s/0003", "s/0004"} and not report.found.unmatched
    assert {row.key for row in read_index(layout.shards)} == rows.keys() - {"s/0003", "s/0004"}
    from PIL import Image

    Image.open(tmp_path / "pairs/0004.png").save(tmp_path / "pairs/other.bmp")  # other bytes, the same look
    (tmp_path / "pairs/other.txt").write_text("an entirely new caption")
    for stage in (download, ingest):
        stage.run(params, layout)
    assert "s/other" not in {row.key for row in read_index(layout.shards)}
    dropped = {entry.key: entry.reason for entry in read_ledger(layout.shards)}
    assert dropped["s/other"] == "forgotten"
    assert found_in(layout.work / "ingest", b"an entirely new caption") == []


def two_of_a_caption(folder: Path, *numbers: int) -> tuple[Params, Layout]:
    """A project with 40 drawings, of which those with these numbers share a caption."""
    write_pairs(folder / "pairs", range(40), CAPTIONS)
    for number in numbers:
        (folder / f"pairs/{number:04d}.txt").write_text("two drawings have this caption")
    layout = Layout.find(folder / "project")
    layout.root.mkdir()
    params = pipeline_params({"s": folder_source(folder / "pairs")})
    for stage in (download, ingest):
        stage.run(params, layout)
    return params, layout


def test_a_caption_that_others_have_stays(tmp_path: Path):
    params, layout = two_of_a_caption(tmp_path, 1, 2)
    caption.run(params, layout)
    assert {"s/0001", "s/0002"} <= {row.key for row in read_index(layout.shards)}
    run(params, layout, "s/0001")
    assert found_in(layout.shards, b"two drawings have this caption")
    assert "s/0002" in {row.key for row in read_index(layout.shards)}


@pytest.mark.parametrize("view", [thumbnail, square_view])
def test_a_page_that_shows_it_beside_a_caption_that_others_have(tmp_path: Path, view: Callable[[bytes], str]):
    params, layout = two_of_a_caption(tmp_path, 7, 8)
    pages = {name: layout.state / f"mlflow/artifacts/{name}.html" for name in ("s/0007", "s/0008")}
    for key, page in pages.items():
        shown = view(picture_of(layout, key)[1])
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f"<img src='{shown}' alt='two drawings have this caption'>")
    run(params, layout, "s/0007")
    assert {name for name, page in pages.items() if page.exists()} == {"s/0008"}


def test_indexes_of_folders(project: tuple[Params, Layout]):
    params, layout = project
    vectors = StoredVectors(layout.state / "search/vectors/m", 2)
    for number in (7, 8):
        vectors.add([bytes_sha256(png(number))], np.ones((1, 2), np.float32))
    run(params, layout, "s/0007")
    left = StoredVectors(layout.state / "search/vectors/m", 2)
    assert [bytes_sha256(png(number)) in left for number in (7, 8)] == [False, True]


@pytest.mark.parametrize("step", ["write_forgotten", "rebuild", "_delete", "purge"])
def test_an_interrupted_one_is_continued_by_the_same_command(
    project: tuple[Params, Layout], step: str, monkeypatch: pytest.MonkeyPatch
):
    params, layout = project
    _, jpeg = picture_of(layout, "s/0007")
    needles = (CAPTIONS.format(7).encode(), jpeg[40:])
    real = getattr(flow, step)

    def killed(*arguments: Any, **named: Any) -> None:
        real(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(flow, step, killed)
        run(params, layout, "s/0007")
    assert found_in(layout.state / "forget", needles[0])  # what it is recognised by is kept until all is done
    shutil.copy(layout.state / "forget/pending.json", layout.state / "forget/.pending.json.12")  # killed while writing
    report = run(params, layout)
    assert not report.unfinished and found_in(layout.root, *needles) == []
    assert len(read_forgotten(layout.opt_out).rows) == 1
    assert "s/0007" not in {row.key for row in read_index(layout.shards)}


@pytest.mark.parametrize("linked", ["reports", "reports/flame"])
def test_an_out_on_another_disk(project: tuple[Params, Layout], tmp_path: Path, linked: str):
    params, layout = project
    theirs = layout.data / "mine/page.html"
    report = layout.data / "reports/flame/report.html"
    for page in (report, theirs):
        page.parent.mkdir(parents=True)
        page.write_text(f"<b>{CAPTIONS.format(7)}</b>")
    (report.parent / "digests.json").write_text("{}")
    (tmp_path / "disk").mkdir()
    for name in (linked, "mine"):
        place = tmp_path / "disk" / Path(name).name
        (layout.data / name).rename(place)
        (layout.data / name).symlink_to(place)
    assert "data/reports/flame/report.html" in run(params, layout, "s/0007").purged.files
    assert not report.exists() and theirs.exists()


def test_pictures_inside_a_table(tmp_path: Path):
    folder = tmp_path / "table"
    folder.mkdir()
    rows = [{"image": {"bytes": png(n), "path": f"{n:03d}.png"}, "caption": CAPTIONS.format(n)} for n in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    layout = Layout.find(tmp_path / "project")
    layout.root.mkdir()
    source = folder_source(folder, table="rows.parquet", image_column="image", caption_column="caption")
    params = pipeline_params({"t": source})
    for stage in (download, ingest):
        stage.run(params, layout)
    run(params, layout, "t/005")
    assert found_in(layout.root, png(5)[40:], CAPTIONS.format(5).encode()) == []
    assert len(read_index(layout.shards)) == 39
    assert json.loads((layout.raw / "t/source.json").read_text())["forgotten"] == 1


def test_workspaces_and_what_is_known_before(project: tuple[Params, Layout]):
    params, layout = project
    workspace = layout.state / "runs/abc"
    shutil.copytree(layout.data, workspace / "data")
    _, jpeg = picture_of(layout, "s/0007")
    run(params, layout, "s/0007")
    assert found_in(workspace, CAPTIONS.format(7).encode(), jpeg[40:]) == []
    with pytest.raises(ParamsError, match="run `flame forget` in the project"):
        run(params, Layout.find(workspace), "s/0001")
    before = read_forgotten(layout.opt_out)
    run(params, layout, "s/0007", "u/later")
    rows = read_forgotten(layout.opt_out).rows
    assert rows[:1] == before.rows and [row.key for row in rows[1:]] == ["u/later"]


@pytest.mark.parametrize("gone", ["s/a-small", "s/c-words"])
def test_captions_that_went_to_a_picture_that_looks_alike(tmp_path: Path, gone: str):
    pairs = tmp_path / "pairs"
    write_pairs(pairs, range(40), CAPTIONS)
    said = {"s/a-small": "a small &amp; simple one", "s/c-words": "this one has\ntwo captions"}
    for (key, captions), quality in zip(said.items(), (60, 80), strict=True):
        (pairs / f"{key[2:]}.jpg").write_bytes(encoded(drawing(100), "JPEG", quality=quality))
        (pairs / f"{key[2:]}.txt").write_text(captions)
    layout = Layout.find(tmp_path / "project")
    layout.root.mkdir()
    filters = {"near_duplicates": {"distance": 4}}
    params = pipeline_params(
        {"s": folder_source(pairs)}, val_fraction=0.01, filters=filters, gates={"min_val_samples": 1}
    )
    for stage in (download, ingest, caption):
        stage.run(params, layout)
    index = read_index(layout.shards, "train")
    assert "s/c-words" in {row.key for row in index} and "s/a-small" not in {row.key for row in index}
    theirs = {"s/a-small": b"a small & simple one", "s/c-words": b"two captions"}
    others = next(words for key, words in theirs.items() if key != gone)
    report = run(params, layout, gone)
    assert report.found.samples[gone].held == {index.digest()}
    assert found_in(layout.root, theirs[gone]) == []
    assert found_in(layout.shards / "train", others)


def test_the_own_folder_stays_even_below_data(tmp_path: Path):
    layout = Layout.find(tmp_path / "project")
    write_pairs(layout.data / "mine", range(40), CAPTIONS)
    params = pipeline_params({"s": folder_source(layout.data / "mine")})
    for stage in (download, ingest):
        stage.run(params, layout)
    before = tree(layout.data / "mine")
    run(params, layout, "s/0007")
    assert tree(layout.data / "mine") == before
    assert found_in(layout.shards, CAPTIONS.format(7).encode()) == []


@pytest.mark.parametrize("made", [False, True])
def test_an_own_table_of_captions_stays_unless_a_stage_makes_it(project: tuple[Params, Layout], made: bool):
    params, layout = project
    table = layout.data / "mine.csv"
    table.write_text("key,caption\ns/0007,a long text\ns/0008,another\n")
    chosen = {"captioner": "table", "path": "data/mine.csv"}
    params = params.model_copy(update={"caption": CaptionParams.model_validate({"short": None, "long": chosen})})
    if made:
        stages = {"mine": {"cmd": "python mine.py", "outs": ["data/mine.csv"]}}
        (layout.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    caption.run(params, layout)
    assert list((layout.work / "caption").glob("*/texts.parquet"))
    report = run(params, layout, "s/0007")
    assert table.exists() != made
    assert ("the table of long captions itself: data/mine.csv" in report.purged.unreached) != made
    assert not list((layout.work / "caption").glob("*/texts.parquet"))


def test_the_own_folder_stays_where_a_reproduction_links_it(project: tuple[Params, Layout], tmp_path: Path):
    params, layout = project
    write_pairs(tmp_path / "corpus/data", range(5, 9), CAPTIONS)
    links = layout.state / "reproduce"
    links.mkdir(parents=True)
    (links / "corpus").symlink_to(tmp_path / "corpus")
    before = tree(tmp_path / "corpus")
    run(params, layout, "s/0007")
    assert tree(tmp_path / "corpus") == before


def test_what_a_killed_stage_left_is_looked_at_by_itself(project: tuple[Params, Layout]):
    params, layout = project
    place = layout.work / "ingest/.tmp"
    for name, number in (("killed", 7), ("other", 8)):
        (place / name).mkdir(parents=True)
        (place / name / "half").write_text(f"it says {CAPTIONS.format(number)}")
    run(params, layout, "s/0007")
    assert [path.name for path in place.iterdir()] == ["other"]


def test_answers_of_a_caption_server(project: tuple[Params, Layout]):
    params, layout = project
    texts = {"1": f"It is {CAPTIONS.format(7)}.", "2": CAPTIONS.format(8)}
    with closing(Answers(answers_file(layout))) as answers:
        for request, text in texts.items():
            answers.put(request, Answer(None, text, 200, "", "m", "", "stop", 1, 1, 1))
    run(params, layout, "s/0007")
    assert found_in(layout.work, CAPTIONS.format(7).encode()) == []
    with closing(Answers(answers_file(layout))) as answers:
        kept = answers.get("2")
        assert answers.get("1") is None and kept is not None and kept.text == texts["2"]


def test_nothing_is_asked_for(project: tuple[Params, Layout]):
    with pytest.raises(ParamsError, match="name what to forget"):
        run(*project)
    with pytest.raises(ParamsError, match=r"line 1: 'bird\.jpg' is no key"):
        asked("bird.jpg")


def test_a_shallow_clone_says_that_it_lacks_commits(project: tuple[Params, Layout], tmp_path: Path):
    params, layout = project
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C"]
    origin = tmp_path / "origin"
    subprocess.run(["git", "init", "-q", origin], check=True)
    for number in range(2):
        subprocess.run([*git, origin, "commit", "-q", "--allow-empty", "-m", str(number)], check=True)
    subprocess.run(["git", "clone", "-q", "--depth=1", origin.as_uri(), tmp_path / "clone"], check=True)
    assert not any("shallow" in line for line in run(params, layout, "s/0007", dry_run=True).purged.unreached)
    (tmp_path / "clone/.git").rename(layout.root / ".git")
    told = run(params, layout, "s/0007", dry_run=True).purged.unreached
    assert any("commits that this shallow clone lacks: `git fetch --unshallow`" in line for line in told)


def test_a_copy_without_hidden_folders(project: tuple[Params, Layout]):
    params, layout = project
    (layout.root / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    with pytest.raises(ParamsError, match=r"has no .dvc/, where DVC keeps its settings: copy it too"):
        run(params, layout, "s/0007", dry_run=True)
