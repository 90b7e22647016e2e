"""`kind: hub` against a stand-in of the hub's API: pinned, verified, resumed, refused by name."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from flame_core.data.forgotten import Forgotten, ForgottenSample
from flame_core.data.hub.without import copy_members
from flame_core.data.shards import Sample, write_shard
from flame_core.data.sources.hub import Hub
from flame_core.data.sources.listing import KEPT_COLUMNS, SOURCE, read_pairs, read_source
from flame_core.errors import InputError, ResourceError
from flame_core.params import HubSource
from flame_core.settings import settings
from flame_core.work import WorkCache, gather
from tests.captions.pictures import jpeg, noise
from tests.data.hub.stand_in import REPO, TOKEN, stand_in

ROOT = Path(__file__).parents[3]
PICTURES = [jpeg(noise(number, (40, 30))) for number in range(6)]


@pytest.fixture
def hub(monkeypatch):
    with stand_in() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("FLAME_WORKERS", "1")
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read from the environment when it is imported
        settings.cache_clear()
        yield server


def table(numbers, column="image", **more) -> bytes:
    """A parquet table as the hub has them: pictures as {bytes, path}."""
    rows = pa.table(
        {
            column: pa.array(
                [{"bytes": PICTURES[n] if n >= 0 else None, "path": f"{abs(n)}.jpg"} for n in numbers],
                pa.struct({"bytes": pa.binary(), "path": pa.string()}),
            ),
            "caption": [f"Number {n}." for n in numbers],
            "score": [float(n) for n in numbers],
        }
        | more
    )
    sink = io.BytesIO()
    pq.write_table(rows, sink, row_group_size=2)
    return sink.getvalue()


def tar(tmp_path, numbers) -> bytes:
    write_shard(
        tmp_path / "made.tar",
        [Sample(f"{n:04d}", PICTURES[n], {"caption": f"Number {n}."}) for n in numbers],
    )
    return (tmp_path / "made.tar").read_bytes()


def download(root: Path, revision: str, **changes):
    """(pairs, source.json) of the data set, gathered as the stage does."""
    unit = Hub(HubSource.model_validate({"kind": "hub", "repo": REPO, "revision": revision, **changes})).download(
        WorkCache(root / ".flame/work", "download")
    )
    raw = root / "raw"
    gather(raw, root / ".flame", {name: unit.file(name) for name in unit.names()}, None, unit.sha256)
    return read_pairs(raw, raw), json.loads((raw / SOURCE).read_bytes())


def test_parquet_with_pictures(tmp_path, hub):
    commit = hub.commit({
        "data/train-0.parquet": table([0, 1, -2]), "data/val-0.parquet": table([3]), "README.md": b"---\n"
    })  # fmt: skip
    pairs, source = download(tmp_path, commit, val_files="data/val-*")
    assert [(pair.key, pair.captions, pair.split, pair.licence) for pair in pairs] == [
        (f"data/{split}-0/{row:08d}", {"en": [f"Number {n}."]}, split, "cc-by-4.0")
        for split, row, n in (("train", 1, 0), ("train", 2, 1), ("train", 3, -2), ("val", 1, 3))
    ]
    assert [pair.image and pair.image.read() for pair in pairs] == [PICTURES[0], PICTURES[1], None, PICTURES[3]]
    assert pairs[2].missing == "data/train-0/00000003 (2.jpg)"
    assert (source["commit"], source["card_licence"], source["pairs"]) == (commit, "cc-by-4.0", 4)
    assert source["unused"][0] | {"examples": source["unused"][0]["examples"]} == {
        "reason": "not_matched", "kind": ".md", "count": 1, "examples": ["README.md"],
    }  # fmt: skip


def test_columns_are_kept_for_filters(tmp_path, hub):
    commit = hub.commit({"0.parquet": table([0, 1, 2])})
    download(tmp_path, commit, keep_columns=["score"], max_samples=2)
    rows = pq.read_table(tmp_path / "raw" / KEPT_COLUMNS).to_pylist()
    assert rows == [
        {"key": "0/00000001", "columns": '{"score": 0.0}'}, {"key": "0/00000002", "columns": '{"score": 1.0}'}
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"0\.parquet has no column 'clip'"):
        download(tmp_path, commit, keep_columns=["clip"])


def test_tars_are_read_as_webdataset(tmp_path, hub):
    commit = hub.commit({"a/0.tar": tar(tmp_path, [0, 1]), "a/1.tar": tar(tmp_path, [2])})
    pairs, _ = download(tmp_path, commit, licence="CC0")
    assert [(pair.key, pair.captions["en"], pair.licence) for pair in pairs] == [
        ("a/0/0000", ["Number 0."], "CC0"), ("a/0/0001", ["Number 1."], "CC0"), ("a/1/0002", ["Number 2."], "CC0"),
    ]  # fmt: skip
    assert [pair.image.read() for pair in pairs] == PICTURES[:3]
    assert pairs[2].image.path == tmp_path / "raw/files/a/1.tar"


def test_a_commit_that_is_there_needs_no_hub_and_other_columns_fetch_nothing(tmp_path, hub, monkeypatch):
    commit = hub.commit({"0.parquet": table([0, 1], title=["one", "two"])})
    before, _ = download(tmp_path, commit)
    hub.down, asked = True, len(hub.log)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert download(tmp_path, commit)[0] == before
    pairs, _ = download(tmp_path, commit, caption_column="title", language="fr", max_samples=1)
    assert [pair.captions for pair in pairs] == [{"fr": ["one"]}]
    assert len(hub.log) == asked


def test_a_branch_that_moves_is_looked_at_and_only_new_files_are_fetched(tmp_path, hub):
    first = hub.commit({"0.parquet": table([0]), "1.parquet": table([1])})
    _, source = download(tmp_path, "main")
    assert source["commit"] == first
    second = hub.commit({"0.parquet": table([0]), "1.parquet": table([2])})
    pairs, source = download(tmp_path, "main")
    assert (source["commit"], source["revision"]) == (second, "main")
    assert [pair.captions["en"] for pair in pairs] == [["Number 0."], ["Number 2."]]
    assert (hub.fetched("0.parquet"), hub.fetched("1.parquet")) == (1, 2)
    assert download(tmp_path, first)[1]["commit"] == first


def test_a_body_that_is_cut_is_resumed_and_files_without_lfs_are_verified_too(tmp_path, hub):
    hub.cut["0.parquet"], hub.plain = 1, {"1.parquet"}
    commit = hub.commit({"0.parquet": table([0, 1, 2]), "1.parquet": table([3])})
    pairs, _ = download(tmp_path, commit)
    assert [pair.image.read() for pair in pairs] == PICTURES[:4]


def test_a_file_that_never_comes_whole_costs_no_other_file(tmp_path, hub):
    hub.cut["1.parquet"] = 100
    commit = hub.commit({"0.parquet": table([0, 1]), "1.parquet": table([2])})
    with pytest.raises(ResourceError, match=r"file '1\.parquet' cannot be had .*files that are good are kept"):
        download(tmp_path, commit)
    hub.cut = {}
    assert [pair.image.read() for pair in download(tmp_path, commit)[0]] == PICTURES[:3]
    assert hub.fetched("0.parquet") == 1
    names = {path.name for path in (tmp_path / "raw").rglob("*")}
    names |= {path.name for path in (tmp_path / ".flame/work").rglob("*") if not path.is_dir()}
    assert not {name for name in names if name.endswith((".incomplete", ".lock", ".metadata"))}


@pytest.mark.parametrize("plain", [set(), {"0.parquet"}])
def test_other_bytes_than_are_listed_are_refused_and_fetched_again(tmp_path, hub, plain):
    hub.swapped, hub.plain = {"0.parquet"}, plain
    commit = hub.commit({"0.parquet": table([0])})
    with pytest.raises(ResourceError, match=r"bytes that came for '0\.parquet' are not those .* lists at"):
        download(tmp_path, commit)
    hub.swapped = set()
    assert len(download(tmp_path, commit)[0]) == 1


def test_a_gated_data_set_needs_a_token_of_the_environment(tmp_path, hub, monkeypatch):
    hub.gated = True
    commit = hub.commit({"0.parquet": table([0])})
    (tmp_path / "home").mkdir()
    with pytest.raises(InputError, match=r"is gated: accept its conditions .* \(HF_TOKEN is not set\)"):
        download(tmp_path, commit)
    assert hub.tokens == {None}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert len(download(tmp_path, commit)[0]) == 1
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not [path for path in files if TOKEN.encode() in path.read_bytes()]


def test_what_is_not_there_is_named(tmp_path, hub):
    commit = hub.commit({"0.parquet": table([0]), "0.tar": b"", "notes.txt": b"x"})
    with pytest.raises(InputError, match="has no revision 'gone'"):
        download(tmp_path, "gone")
    with pytest.raises(InputError, match="has no revision '" + "0" * 40):
        download(tmp_path, "0" * 40)
    with pytest.raises(InputError, match="there is no hub data set made/nothing, or it is private"):
        download(tmp_path, commit, repo="made/nothing")
    with pytest.raises(InputError, match=r"no \.tar or \.parquet that `files` matches \(\*\.json\); it has 0\.parquet"):
        download(tmp_path, commit, files=["*.json"])
    with pytest.raises(InputError, match=r"both \.tar and \.parquet"):
        download(tmp_path, commit)
    parquet = {"files": ["*.parquet"]}
    with pytest.raises(InputError, match=r"0\.parquet has no column 'picture'; .* it has image, caption, score"):
        download(tmp_path, commit, image_column="picture", **parquet)
    with pytest.raises(InputError, match=r"0\.parquet holds string in the column 'caption'; `image_column` must hold"):
        download(tmp_path, commit, image_column="caption", **parquet)
    with pytest.raises(InputError, match=r"made/pairs: 0\.parquet has no column 'text'"):
        download(tmp_path, commit, caption_column="text", **parquet)
    with pytest.raises(InputError, match="none of its files matches val_files"):
        download(tmp_path, commit, val_files="test*", **parquet)
    broken = hub.commit({"0.parquet": b"no table"})
    with pytest.raises(InputError, match=r"0\.parquet is not a readable parquet file"):
        download(tmp_path, broken)


def test_without_a_network_the_error_says_so(tmp_path, hub, monkeypatch):
    commit = hub.commit({"0.parquet": table([0])})
    with monkeypatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(ResourceError, match=r"commit .* has to be asked for, and HF_HUB_OFFLINE is set|revision"):
            download(tmp_path, commit)
    assert hub.log == []
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ResourceError, match=r"cannot be had from the hub \(.*\)\. Is there a network\?"):
        download(tmp_path, commit)


def test_max_samples_fetches_no_file_behind_them(tmp_path, hub):
    commit = hub.commit({f"{number}.parquet": table([number, number + 1]) for number in range(4)})
    pairs, source = download(tmp_path, commit, max_samples=3)
    assert [pair.captions["en"][0] for pair in pairs] == ["Number 0.", "Number 1.", "Number 1."]
    assert [hub.fetched(f"{number}.parquet") for number in range(4)] == [1, 1, 0, 0]
    assert {group["kind"]: group["count"] for group in source["unused"]} == {"files": 2, "samples": 1}


RUN = """
import sys
from pathlib import Path
from flame_core.data.sources import hub
from tests.data.sources.test_hub import download
hub.FEW_BYTES = 0
if __name__ == "__main__":
    download(Path(sys.argv[1]), sys.argv[2], keep_columns=["score"])
"""


def test_two_processes_give_the_same_bytes(tmp_path, hub):
    """In a program of their own: workers keep the environment in which the first of them began."""
    commit = hub.commit({f"{number}.parquet": table([number]) for number in range(4)})
    (tmp_path / "run.py").write_text(RUN)
    found = []
    for workers in ("1", "2"):
        root = tmp_path / workers
        environment = os.environ | {"FLAME_WORKERS": workers, "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, tmp_path / "run.py", root, commit], env=environment, check=True, timeout=120)
        found.append({p.relative_to(root).as_posix(): p.read_bytes() for p in (root / "raw").rglob("*") if p.is_file()})
    assert found[0] == found[1] and len(found[0]) > 4


def test_importing_it_loads_no_hub_library():
    code = "import sys, flame_core.data.sources.hub; print('huggingface_hub' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_what_is_forgotten_leaves_the_files_and_nothing_is_fetched_again(tmp_path, hub, kind):
    content = table([0, 1, 2]) if kind == "parquet" else tar(tmp_path, [0, 1, 2])
    commit = hub.commit({f"a.{kind}": content, f"b.{kind}": table([3]) if kind == "parquet" else tar(tmp_path, [3])})
    params = HubSource.model_validate({"kind": "hub", "repo": REPO, "revision": commit})
    work = WorkCache(tmp_path / "work", "download")
    unit = Hub(params).download(work)
    before, asked = read_pairs(unit.folder, unit.folder), len(hub.log)
    gone = next(pair for pair in before if pair.captions["en"] == ["Number 1."])
    others = {name: unit.sha256[name] for name in unit.names() if "/b." in name}
    forgotten = Forgotten((ForgottenSample(f"h/{gone.key}"),)).of("h")  # by its key only
    for _ in range(2):
        unit = Hub(params, forgotten).download(work)
        raw = tmp_path / "raw"
        gather(raw, tmp_path / ".flame", {name: unit.file(name) for name in unit.names()}, None, unit.sha256)
        pairs = read_pairs(raw, raw)
        assert [pair.key for pair in pairs] == [pair.key for pair in before if pair.key != gone.key]
        assert [pair.image.read() for pair in pairs] == [PICTURES[0], PICTURES[2], PICTURES[3]]
        assert len(hub.log) == asked and others.items() <= unit.sha256.items()
        assert read_source(unit.folder)["forgotten"] == 1
    kept = [path.read_bytes() for path in raw.rglob("*") if path.is_file()]
    assert not any(PICTURES[1] in each for each in kept) and any(PICTURES[2] in each for each in kept)
    rows = list((tmp_path / "work").rglob("rows.parquet"))
    assert not any("Number 1." in repr(pq.read_table(path).to_pylist()) for path in rows)


def test_a_member_belongs_to_the_longest_key(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name in ("22.jpg", "22.txt", "22.10.jpg", "22.10.txt"):
            info = tarfile.TarInfo(name)
            info.size = 100 * len(name)
            file.addfile(info, io.BytesIO(name.encode() * 100))
    copy_members(tmp_path / "a.tar", tmp_path / "b.tar", {"22"}, {"22.10"})
    with tarfile.open(tmp_path / "b.tar") as file:
        assert file.getnames() == ["22.10.jpg", "22.10.txt"]
        assert file.extractfile("22.10.txt").read() == b"22.10.txt" * 100


def test_values_that_are_not_read_are_counted(tmp_path, hub):
    categories = pa.array([["a", "b"], None])
    commit = hub.commit({"data/train-0.parquet": table([0, 1], category=categories), "README.md": b"---\n"})
    _, source = download(tmp_path, commit)
    (group,) = [group for group in source["unused"] if group["reason"] == "unread_value"]
    assert (group["kind"], group["count"]) == ("category as a list", 1)
    assert group["examples"] == ["category"]
