"""Packages from a repository that the test makes, through the real apt."""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from flame_core.data.sources.apt import licence_of
from flame_core.data.sources.debian import Debian
from flame_core.data.sources.listing import read_pairs, read_source
from flame_core.errors import ResourceError
from flame_core.params import DebianSource
from flame_core.settings import settings
from flame_core.work import Unit, WorkCache
from tests.data.drawings import png

needs_apt = pytest.mark.skipif(not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="apt is not here")

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
COPYRIGHT = (
    b"Format: x\n\nFiles: *\nCopyright: 2002 somebody\n  and others\nLicense: GPL-2\n\nFiles: debian/*\nLicense: MIT\n"
)
JAY = "A jay.\nde.utf8=Ein Häher.\nca@valencia.utf8=Un gaig.\npt_BR.utf8=\nnonsense\n"
STAMPS = {
    "animals/birds/blue-jay.png": png(1),
    "animals/birds/blue-jay.svg": SVG,
    "animals/birds/blue-jay.ogg": b"tweet",
    "animals/birds/blue-jay.dat": b"noflip\n",
    "animals/birds/blue-jay.txt": JAY.encode(),
    "animals/birds/blue-jay_mirror.png": png(2),
    "food/pie.svg": SVG,
    "food/pie.txt": b"A pie.",
    "food/gone.txt": b"Nothing.",
    "food/silent.png": png(3),
}


class Repository:
    """A flat apt repository in a folder, and an apt configuration that knows no other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        self.folder.mkdir()
        self.sources = folder / "sources.list"
        self.point_to(self.folder)
        self.configuration = folder / "apt.conf"
        self.configuration.write_text(f'Dir::Etc::sourcelist "{self.sources}";\nDir::Etc::sourceparts "-";\n')

    def point_to(self, folder: Path) -> None:
        self.sources.write_text(f"deb [trusted=yes] file:{folder} ./\n")

    def add(
        self,
        package: str,
        version: str,
        files: Mapping[str, bytes],
        links: Mapping[str, str] | None = None,
        hashes: Sequence[str] = ("SHA256",),
    ) -> None:
        tree = self.folder.parent / f"tree-{package}-{version}"
        control = (
            f"Package: {package}\nVersion: {version}\nArchitecture: all\nMaintainer: a <a@b.test>\nDescription: x\n"
        )
        everything = {"DEBIAN/control": control.encode(), f"usr/share/doc/{package}/copyright": COPYRIGHT, **files}
        for name, content in everything.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(content)
        for name, target in (links or {}).items():
            (tree / name).symlink_to(target)
        deb = self.folder / f"{package}_{version}_all.deb"
        command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, deb]
        subprocess.run(command, check=True, capture_output=True)
        content = deb.read_bytes()
        with (self.folder / "Packages").open("a") as file:
            lines = "".join(f"{name}: {hashlib.new(name.lower(), content).hexdigest()}\n" for name in hashes)
            file.write(f"{control}Filename: ./{deb.name}\nSize: {len(content)}\n{lines}\n")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    made = Repository(tmp_path)
    monkeypatch.setenv("APT_CONFIG", str(made.configuration))
    monkeypatch.setenv("FLAME_CACHE_DIR", str(tmp_path / "cache"))
    settings.cache_clear()
    return made


def _add_stamps(
    repository: Repository, version: str = "1.0", hashes: Sequence[str] = ("SHA256",), **more: bytes
) -> None:
    files = {f"usr/share/tuxpaint/stamps/{name}": content for name, content in (STAMPS | more).items()}
    repository.add("tuxpaint-stamps-default", version, files, hashes=hashes)


def _download(tmp_path: Path, *packages: str) -> Unit:
    params = DebianSource.model_validate({"kind": "debian", "packages": packages or ["tuxpaint-stamps-default"]})
    return Debian(params).download(WorkCache(tmp_path / "work", "download"))


@needs_apt
def test_tux_paint(repository: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    _add_stamps(repository)
    unit = _download(tmp_path)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    pairs = {pair.key: pair for pair in read_pairs(unit.folder, unit.folder)}
    assert sorted(pairs) == [
        "stamps/animals/birds/blue-jay",
        "stamps/food/gone",
        "stamps/food/pie",
        "stamps/food/silent",
    ]
    jay = pairs["stamps/animals/birds/blue-jay"]
    assert jay.captions == {"en": ["A jay."], "de": ["Ein Häher."], "ca@valencia": ["Un gaig."], "pt_BR": [""]}
    assert (jay.title, jay.category, jay.licence) == ("blue jay", "animals/birds", "GPL-2")
    assert jay.image is not None and jay.image.read() == png(1)
    assert pairs["stamps/food/gone"].image is None
    assert pairs["stamps/food/silent"].captions == {}
    names = [
        "pairs.parquet",
        "source.json",
        *(f"pictures/stamps/{name}" for name in ("animals/birds/blue-jay.png", "food/pie.svg", "food/silent.png")),
    ]
    assert unit.names() == sorted(names)
    (package,) = read_source(unit.folder)["packages"]
    (deb,) = repository.folder.glob("*.deb")
    sha256 = hashlib.sha256(deb.read_bytes()).hexdigest()
    assert package == {"package": "tuxpaint-stamps-default", "version": "1.0", "sha256": sha256, "licence": "GPL-2"}


@needs_apt
@pytest.mark.parametrize("hashes", [["SHA512"], ["SHA256", "SHA512"]])
def test_packages_are_kept_alike_whatever_hash_their_archive_names(repository: Repository, tmp_path: Path, hashes):
    """apt names the strongest: in Debian SHA256, in Ubuntu SHA512."""
    _add_stamps(repository, hashes=hashes)
    first = _download(tmp_path)
    (deb,) = repository.folder.glob("*.deb")
    assert read_source(first.folder)["packages"][0]["sha256"] == hashlib.sha256(deb.read_bytes()).hexdigest()
    (kept,) = (tmp_path / "cache/apt/debs").rglob("*.deb")
    stamp = kept.stat().st_mtime_ns
    assert (_download(tmp_path).computed, kept.stat().st_mtime_ns) == (False, stamp)


@needs_apt
def test_a_new_version_is_seen_and_an_old_one_not_fetched_again(repository: Repository, tmp_path: Path):
    _add_stamps(repository)
    first = _download(tmp_path)
    kept = next((tmp_path / "cache/apt/debs").rglob("*.deb"))
    stamp = kept.stat().st_mtime_ns
    again = _download(tmp_path)
    assert (again.folder, again.computed, kept.stat().st_mtime_ns) == (first.folder, False, stamp)
    _add_stamps(repository, "2.0", **{"food/pie.txt": b"A large pie."})
    newer = _download(tmp_path)
    captions = {pair.key: pair.captions for pair in read_pairs(newer.folder, newer.folder)}
    assert captions["stamps/food/pie"] == {"en": ["A large pie."]}


@needs_apt
def test_a_rotten_package_file_is_fetched_again(repository: Repository, tmp_path: Path):
    _add_stamps(repository)
    _download(tmp_path)
    kept = next((tmp_path / "cache/apt/debs").rglob("*.deb"))
    good = kept.read_bytes()
    kept.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    shutil.rmtree(tmp_path / "work")
    assert _download(tmp_path).computed
    assert kept.read_bytes() == good


@needs_apt
def test_without_a_network_the_cached_package_serves(
    repository: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    _add_stamps(repository)
    first = _download(tmp_path)
    repository.point_to(tmp_path / "nowhere")
    shutil.rmtree(tmp_path / "cache/apt/lists")
    again = _download(tmp_path)
    assert again.folder == first.folder
    assert "using version 1.0 from the cache" in caplog.text


@needs_apt
def test_a_package_that_nobody_offers(repository: Repository, tmp_path: Path):
    (repository.folder / "Packages").touch()
    with pytest.raises(ResourceError, match=r"tuxpaint-stamps-default cannot be fetched.*folder.*webdataset"):
        _download(tmp_path)


def test_a_machine_without_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ResourceError, match=r"apt-get, dpkg-deb not found.*`folder` or `webdataset`"):
        _download(tmp_path)


def _clipart(
    title: str, description: str = "", keywords: tuple[str, ...] = (), licence: str = "", language: str = "en"
) -> bytes:
    items = "".join(f"<rdf:li>{keyword}</rdf:li>" for keyword in keywords)
    return f"""<?xml version="1.0"?>
<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><metadata>
<rdf:RDF xmlns:cc="http://web.resource.org/cc/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><cc:Work rdf:about="">
<dc:title>{title}</dc:title><dc:description>{description}</dc:description>
<dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>
<dc:creator><cc:Agent><dc:title>Somebody</dc:title></cc:Agent></dc:creator>
<cc:license rdf:resource="{licence}"/><dc:language>{language}</dc:language>
</cc:Work></rdf:RDF></metadata></svg>""".encode()


@needs_apt
def test_open_clip_art(repository: Repository, tmp_path: Path):
    pictures = {
        f"usr/share/openclipart/png/{name}.png": png(i) for i, name in enumerate(["a/apple_01", "b/house", "c/odd"])
    }
    pictures |= {f"usr/share/openclipart/png/icons/icon_{i}.png": png(10 + i) for i in range(4)}
    texts = {
        "a/apple_01": _clipart("Red &amp; green\n apple", "From a tree.", ("fruit", "", "red"), "http://cc.test/pd"),
        "b/house": _clipart("Maison", language="fr-FR"),
        "c/odd": b"<svg",
        **{f"icons/icon_{i}": _clipart("Icon collection", f"Icon {i}") for i in range(4)},
    }
    repository.add(
        "openclipart-png", "1:2", pictures, {"usr/share/openclipart/png/b/apple_copy.png": "../a/apple_01.png"}
    )
    svgs = {f"usr/share/openclipart/svg/{name}.svg": content for name, content in texts.items()}
    repository.add("openclipart-svg", "1:2", svgs, {"usr/share/openclipart/svg/b/apple_copy.svg": "../a/apple_01.svg"})
    unit = _download(tmp_path, "openclipart-png")
    pairs = {pair.key.removeprefix("clipart/"): pair for pair in read_pairs(unit.folder, unit.folder)}
    assert sorted(pairs) == ["a/apple_01", "b/apple_copy", "b/house", "c/odd", *(f"icons/icon_{i}" for i in range(4))]
    apple = pairs["a/apple_01"]
    assert apple.captions == {"en": ["Red & green apple", "From a tree."]}
    assert (apple.title, apple.keywords, apple.category, apple.licence) == (
        "Red & green apple",
        ["fruit", "red"],
        "a",
        "http://cc.test/pd",
    )
    assert pairs["b/apple_copy"].image == apple.image
    assert pairs["b/house"].captions == {"fr": ["Maison"]}
    assert (pairs["c/odd"].captions, pairs["c/odd"].licence) == ({"en": ["odd"]}, "GPL-2")
    assert pairs["icons/icon_3"].captions == {"en": ["icon", "Icon 3"]}  # the collection's name says nothing
    assert [package["package"] for package in read_source(unit.folder)["packages"]] == [
        "openclipart-png",
        "openclipart-svg",
    ]


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (COPYRIGHT.decode(), "GPL-2"),
        (
            "It was packaged.\n\nCopyright:\n\n creative commons Public Domain\n\n more",
            "creative commons Public Domain",
        ),
        ("nothing", None),
        (None, None),
    ],
)
def test_licences(tmp_path: Path, text: str | None, licence: str | None):
    if text is not None:
        (tmp_path / "copyright").write_text(text)
    assert licence_of(tmp_path / "copyright") == licence


@needs_apt
@pytest.mark.slow
def test_the_real_package(tmp_path: Path):
    unit = _download(tmp_path)
    pairs = read_pairs(unit.folder, unit.folder)
    good = [pair for pair in pairs if pair.image and pair.captions.get("en")]
    assert len(good) > 900
    assert sum("de" in pair.captions for pair in good) > 700
    assert len({pair.category for pair in good}) > 50
