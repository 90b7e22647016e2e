from __future__ import annotations

from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.tar_headers import Member
from flame_core.data.sources.tar_samples import group_members


def _group(*names: str) -> tuple[list[tuple[str, list[str]]], list[str], dict[str, int]]:
    """(key, extensions) of each sample, members that are problems, {kind: number} of those not used."""
    members = [Member(name, offset, 1, True, False) for offset, name in enumerate(names)]
    problems, unused = Problems(), Unused()
    samples = group_members("0.tar", members, problems, unused)
    used = [member.offset for parts in samples for member in parts.members.values()]
    assert len(set(used)) == len(used)
    assert len(names) == len(used) + len(problems) + sum(group.count for group in unused.rows())
    kinds = {group.kind: group.count for group in unused.rows()}
    return [(parts.key, list(parts.members)) for parts in samples], [problem.file for problem in problems], kinds


def test_members_of_a_key_need_not_stand_together():
    samples = [("1", ["jpg", "txt"]), ("2", ["jpg", "txt"])]
    assert _group("1.jpg", "2.jpg", "1.txt", "2.txt") == (samples, [], {})
    assert _group("a.v1/1.txt", "x", "a.v1/1.JPG")[0] == [("a.v1/1", ["txt", "jpg"])]


def test_names_with_dots_are_samples_where_they_are_whole():
    assert _group("22.10.jpg", "22.10.txt", "22.11.jpg", "22.11.txt", "7.jpg", "7.txt") == (
        [("22.10", ["jpg", "txt"]), ("22.11", ["jpg", "txt"]), ("7", ["jpg", "txt"])],
        [],
        {},
    )
    assert _group("22.10.jpg")[0] == [("22.10", ["jpg"])]
    assert _group("v 1.0 (x) 3.jpg", "v 1.0 (x) 3.json")[0] == [("v 1.0 (x) 3", ["jpg", "json"])]


def test_extensions_of_several_parts_are_counted_by_what_they_are():
    assert _group("1.jpg", "1.txt", "1.seg.png", "1.alt.txt", "1.cls") == (
        [("1", ["jpg", "txt"])],
        [],
        {".seg.png": 1, ".alt.txt": 1, ".cls": 1},
    )
    names = [f"s{n}.{kind}" for n in range(6) for kind in ("input.jpg", "outputs.txt")]
    assert _group(*names) == ([], [], {".input.jpg": 6, ".outputs.txt": 6})


def test_a_tar_that_was_written_to_twice_has_two_samples_of_a_key():
    assert _group("1.jpg", "1.txt", "1.jpg", "1.txt")[0] == [("1", ["jpg", "txt"]), ("1", ["jpg", "txt"])]


def test_no_caption_goes_to_a_picture_that_may_not_be_its_own():
    samples, problems, _ = _group("1.jpg", "1.jpg", "1.txt", "1.txt", "2.jpg", "2.txt")
    assert samples == [("2", ["jpg", "txt"])]
    assert problems == ["0.tar/1.jpg", "0.tar/1.jpg", "0.tar/1.txt", "0.tar/1.txt"]
    assert _group("1.jpg", "1.txt", "1.txt") == ([("1", ["jpg", "txt"])], ["0.tar/1.txt"], {})
    assert _group("1.jpg", "1.png", "1.txt") == ([("1", ["jpg", "png", "txt"])], [], {})


def test_hidden_and_special_members():
    members = [
        Member("__MACOSX/1.jpg", 0, 1, True, False),
        Member("._1.jpg", 1, 1, True, False),
        Member("1.jpg", 2, 0, False, False),
        Member("sub", 3, 0, False, True),
        Member("./2.jpg", 4, 1, True, False),
        Member("inner.tar", 5, 1, True, False),
    ]
    unused = Unused()
    samples = group_members("0.tar", members, [], unused)
    assert [parts.key for parts in samples] == ["./2"]
    assert {(group.reason, group.kind): group.count for group in unused.rows()} == {
        ("hidden", ".jpg"): 2,
        ("unsupported_member", "link or sparse file (tar --dereference --hard-dereference packs none)"): 1,
        ("unsupported_member", ".tar"): 1,
    }


def test_what_stands_in_a_picture_s_place():
    members = [Member(name, 0, 1, True, False) for name in ("a/1.txt", "a/1.heic", "2.txt", "2.cls")]
    samples = group_members("0.tar", members, [], Unused())
    assert [(parts.key, parts.unread) for parts in samples] == [("a/1", "0.tar/a/1.heic"), ("2", None)]
