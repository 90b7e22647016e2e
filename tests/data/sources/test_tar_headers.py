from __future__ import annotations

import io
import random
import tarfile
import time
from pathlib import Path

import pytest

from flame_core.data.sources.tar_headers import Member, read_members


def _read(path: Path) -> tuple[list[Member], list[str]]:
    told: list[str] = []
    with path.open("rb") as file:
        return list(read_members(file, told.append)), told


def _write(path: Path, kind: int, names: list[str], rng: random.Random) -> None:
    with tarfile.open(path, "w", format=kind, encoding="utf-8", errors="surrogateescape") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type = rng.choice([tarfile.REGTYPE] * 4 + [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
            info.linkname = (
                "t" * (3 if kind == tarfile.USTAR_FORMAT else rng.choice([3, 300]))
                if info.type == tarfile.SYMTYPE
                else ""
            )
            info.size = rng.randrange(2000) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(rng.randbytes(info.size)))


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("seed", range(4))
def test_whole_tars_read_as_tarfile_reads_them(tmp_path: Path, kind: int, seed: int):
    rng = random.Random(seed)
    longest = 150 if kind == tarfile.USTAR_FORMAT else 400
    names = [f"{'ü' if n % 5 == 0 else 'x'}{'/y' * rng.randrange(longest // 2)}/{n}.jpg" for n in range(40)]
    if kind == tarfile.USTAR_FORMAT:
        names = [f"{'d' * rng.randrange(1, 60)}/{n}.jpg" for n in range(40)]
    _write(tmp_path / "a.tar", kind, [*names, "caf\udce9.jpg"], rng)
    with tarfile.open(tmp_path / "a.tar", errors="surrogateescape") as tar:
        expected = [Member(m.name, m.offset_data, m.size, m.isreg(), m.isdir()) for m in tar]
    assert _read(tmp_path / "a.tar") == (expected, [])


def test_two_tars_in_one_file_are_read_on(tmp_path: Path):
    for name in ("a", "b"):
        _write(tmp_path / f"{name}.tar", tarfile.GNU_FORMAT, [f"{name}.jpg"], random.Random(1))
    (tmp_path / "ab.tar").write_bytes((tmp_path / "a.tar").read_bytes() + (tmp_path / "b.tar").read_bytes())
    members, told = _read(tmp_path / "ab.tar")
    assert [member.name for member in members] == ["a.jpg", "b.jpg"] and told == []


def _plain(path: Path, numbers: range) -> bytes:
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = 700
            tar.addfile(info, io.BytesIO(bytes([65 + number]) * 700))
    return path.read_bytes()


def test_holes_of_zeros_are_named(tmp_path: Path):
    whole = _plain(tmp_path / "a.tar", range(8))
    (tmp_path / "a.tar").write_bytes(whole[:1536] + bytes(2 * 1536) + whole[3 * 1536 :])
    members, told = _read(tmp_path / "a.tar")
    assert [member.name for member in members] == [f"{n}.jpg" for n in (0, 3, 4, 5, 6, 7)]
    assert told == ["damaged: 3,072 bytes of zeros, where members may be lost, behind 0.jpg (byte 1,536 of 20,480)"]
    (tmp_path / "a.tar").write_bytes(whole[:1536] + bytes(3 << 20))  # as a download that allocates first leaves it
    assert "it ends in 3,145,728 bytes of zeros" in _read(tmp_path / "a.tar")[1][0]


def test_chains_of_extension_headers_take_no_recursion(tmp_path: Path):
    pax = tarfile.TarInfo("x.jpg").create_pax_header({**tarfile.TarInfo("n" * 200).get_info()}, "utf-8")
    chain = pax[:-512] * 3000
    (tmp_path / "a.tar").write_bytes(chain + _plain(tmp_path / "b.tar", range(2)))
    begun = time.monotonic()
    members, told = _read(tmp_path / "a.tar")
    assert [member.name for member in members] == ["n" * 200, "1.jpg"] and told == []
    assert time.monotonic() - begun < 10


def test_sparse_members_are_stepped_over(tmp_path: Path):
    header = bytearray(tarfile.TarInfo("s.img").tobuf(tarfile.GNU_FORMAT))
    header[156:157], header[124:136], header[482] = b"S", b"%011o\0" % 600, 1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    more = bytearray(512)
    more[504] = 1
    content = bytes(header) + bytes(more) + bytes(512) + b"d" * 600 + bytes(424)
    (tmp_path / "a.tar").write_bytes(content + _plain(tmp_path / "b.tar", range(1)))
    members, told = _read(tmp_path / "a.tar")
    assert [(member.name, member.regular, member.size) for member in members] == [
        ("s.img", False, 600),
        ("0.jpg", True, 700),
    ]
    assert told == []


def test_ten_thousand_members_take_little_memory(tmp_path: Path):
    import tracemalloc

    _plain_many(tmp_path / "a.tar", 10_000)
    tracemalloc.start()
    members, told = _read(tmp_path / "a.tar")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(members), told) == (10_000, [])
    assert peak < 20 << 20


def _plain_many(path: Path, number: int) -> None:
    with path.open("wb") as file:
        for n in range(number):
            info = tarfile.TarInfo(f"{n // 2:06d}.{'jpg' if n % 2 else 'txt'}")
            info.size = 5
            file.write(info.tobuf(tarfile.USTAR_FORMAT) + b"12345" + bytes(507))
        file.write(bytes(1024))
