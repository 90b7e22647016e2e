"""Lists as people have them; sorted by key, each address once, in little memory."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.data.addresses.address_list import LIST, ListReader
from flame_core.data.addresses.attempts import address_key
from flame_core.data.addresses.expected import count_rows
from flame_core.data.addresses.sorted_list import SortedList, read_addresses, read_keys, write_sorted
from flame_core.data.sources import Problem
from flame_core.data.sources.table_files import table_files
from flame_core.errors import InputError
from flame_core.params import UrlsSource

ROWS = [("http://a.org/1.jpg", 'a "quoted" dog'), ("http://a.org/2.jpg", "zwei Hunde, ein Ball")]


def read(path: Path, scratch: Path, **values: Any) -> tuple[list[tuple[str, Any]], list[Problem]]:
    problems: list[Problem] = []
    params = UrlsSource.model_validate({"kind": "urls", "path": str(path), **values})
    found = ListReader(params, problems, scratch).addresses(table_files(path, LIST))
    return [(each.url, each.records[0]["captions"]) for each in found], problems


def write_all(folder: Path) -> dict[str, dict[str, Any]]:
    """The same rows in every form: {name of the file: params}."""
    plain = "".join(f"{url}\t{text}\n" for url, text in ROWS)
    contents = {
        "cc12m.tsv": plain.encode(),
        "Train_GCC-training.tsv": "".join(f"{text}\t{url}\n" for url, text in ROWS).encode(),
        "cc12m.tsv.gz": gzip.compress(plain.encode()),
        "b.jsonl": "".join(json.dumps({"url": url, "caption": text}) + "\n" for url, text in ROWS).encode(),
        "c.csv": (b'url,caption\nhttp://a.org/1.jpg,"a ""quoted"" dog"\nhttp://a.org/2.jpg,"zwei Hunde, ein Ball"\n'),
    }
    rows = [{"url": url, "caption": text, "subreddit": "dogs"} for url, text in ROWS]
    contents["redcaps.json"] = json.dumps({"info": {"year": 2020}, "annotations": rows}).encode()
    contents["redcaps.json.gz"] = gzip.compress(contents["redcaps.json"])
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    laion = {"URL": [url for url, _ in ROWS], "TEXT": [text for _, text in ROWS], "similarity": [0.3, 0.2]}
    pq.write_table(pa.table(laion), folder / "laion.parquet")
    headless = {"columns": ["url", "caption"]}
    return {
        "cc12m.tsv": headless,
        "cc12m.tsv.gz": headless,
        "Train_GCC-training.tsv": {"columns": ["caption", "url"]},
        "b.jsonl": {},
        "c.csv": {},
        "redcaps.json": {},
        "redcaps.json.gz": {},
        "laion.parquet": {"url_column": "URL", "caption_column": "TEXT", "keep_columns": ["similarity"]},
    }


def test_every_form_gives_the_same_rows(tmp_path: Path):
    for name, values in write_all(tmp_path).items():
        assert read(tmp_path / name, tmp_path, **values) == (ROWS, []), name
        assert count_rows(tmp_path / name) - (name == "c.csv") == 2


def test_a_list_without_a_header_is_told_what_to_write(tmp_path: Path):
    write_all(tmp_path)
    with pytest.raises(InputError, match=r"no header.*\[caption, url\]"):
        read(tmp_path / "Train_GCC-training.tsv", tmp_path)
    with pytest.raises(InputError, match=r"no header.*\[url, caption\]"):
        read(tmp_path / "cc12m.tsv.gz", tmp_path)


def test_a_bad_row_costs_itself(tmp_path: Path):
    path = tmp_path / "a.tsv"
    path.write_bytes(
        b"http://a.org/1\tgood\nhttp://a.org/2\n\tno address\nhttp://a.org/3\t\xff\xfe\nhttp://a.org/4\tgood too\n"
    )
    rows, problems = read(path, tmp_path, columns=["url", "caption"])
    assert rows == [("http://a.org/1", "good"), ("http://a.org/4", "good too")]
    assert [problem.reason for problem in problems] == ["damaged_row"] * 3


def test_a_quoted_caption_may_have_several_lines_without_a_header_too(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text('http://a.org/1,"a dog\nruns, fast"\nhttp://a.org/2,"not closed\nhttp://a.org/3,good\n')
    rows, problems = read(path, tmp_path, columns=["url", "caption"])
    assert rows == [("http://a.org/1", "a dog\nruns, fast"), ("http://a.org/3", "good")]
    assert [problem.reason for problem in problems] == ["damaged_row"]


@pytest.mark.parametrize("first", ["a nice\tdog,http://a.org/0", '"a dog, a cat; and",http://a.org/0'])
def test_the_first_row_does_not_decide_about_the_others(tmp_path: Path, first: str):
    path = tmp_path / "a.csv"
    path.write_text("\n".join([first, *(f"a dog,http://a.org/{n}" for n in range(1, 30))]))
    rows, problems = read(path, tmp_path, columns=["caption", "url"])
    assert [url for url, _ in rows] == [f"http://a.org/{n}" for n in range(30)] and not problems


def test_a_list_in_a_text_without_a_header_is_told_what_to_write(tmp_path: Path):
    (tmp_path / "a.txt").write_text("a dog, small\thttp://a.org/1\n")
    with pytest.raises(InputError, match=r"no header.*\[caption, url\]"):
        read(tmp_path / "a.txt", tmp_path)
    assert read(tmp_path / "a.txt", tmp_path, columns=["caption", "url"]) == ([("http://a.org/1", "a dog, small")], [])


def test_an_address_that_is_listed_twice_has_all_captions(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    rows = [("http://a.org/1", "one"), ("http://a.org/2", "two"), ("http://a.org/1", {"de": ["eins"]})]
    path.write_text("".join(json.dumps({"url": url, "caption": text}) + "\n" for url, text in rows))
    params = UrlsSource.model_validate({"kind": "urls", "path": str(path)})
    counts = write_sorted(tmp_path, ListReader(params, [], tmp_path).addresses([path]), None)
    keys = list(read_keys(tmp_path))
    assert counts == SortedList(3, 2) and keys == sorted(map(address_key, ("http://a.org/1", "http://a.org/2")))
    found = {row.url: [record["captions"] for record in row.records] for row in read_addresses(tmp_path, 0, 2)}
    assert found == {"http://a.org/1": ["one", {"de": ["eins"]}], "http://a.org/2": ["two"]}


def test_the_first_samples_are_the_same_ones_of_a_longer_list(tmp_path: Path):
    kept = []
    for number in (3000, 6000):
        path = tmp_path / f"{number}.tsv"
        path.write_text("".join(f"http://a.org/{n}\tc\n" for n in range(number)))
        params = UrlsSource.model_validate({"kind": "urls", "path": str(path), "columns": ["url", "caption"]})
        counts = write_sorted(tmp_path, ListReader(params, [], tmp_path).addresses([path]), 2000)
        kept.append(list(read_keys(tmp_path)))
        every = sorted(address_key(f"http://a.org/{n}") for n in range(number))
        assert kept[-1] == every[:2000] and counts == SortedList(number, 2000, number - 2000, every[2000])
        assert [row.key for row in read_addresses(tmp_path, 1000, 1500)] == kept[-1][1000:1500]


@pytest.mark.slow
def test_ten_times_the_rows_take_no_more_memory(tmp_path: Path):
    code = (
        "import re, sys; from pathlib import Path\n"
        "from flame_core.data.addresses.address_list import ListReader\n"
        "from flame_core.data.addresses.sorted_list import write_sorted\n"
        "from flame_core.params import UrlsSource\n"
        "path = Path(sys.argv[1])\n"
        "params = UrlsSource(kind='urls', path=str(path), columns=['url', 'caption'])\n"
        "write_sorted(path.parent, ListReader(params, [], path.parent).addresses([path]), None)\n"
        # not ru_maxrss, which begins with what the parent held
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
    )
    peaks = []
    for number in (100_000, 1_000_000):
        path = tmp_path / "list.tsv"
        with path.open("w") as file:
            file.writelines(
                f"http://example.org/pictures/{n}.jpg\ta caption of the usual length, {n}\n" for n in range(number)
            )
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) * 1024)
    assert peaks[1] < 1e9 and peaks[1] < 1.3 * peaks[0], peaks  # all rows at once would take 200 MB more
