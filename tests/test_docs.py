"""Links between the pages of the documentation lead somewhere."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text("utf-8"))


@cache
def anchors(page: Path) -> list[str]:
    """Names of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = [re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", each) for each in headings]
    return [re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in plain]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page))):
        place, _, anchor = link.partition("#")
        if "://" in place or place.startswith("mailto:"):
            continue
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_each_heading_of_a_page_has_its_own_name(page: Path) -> None:
    """A link to the second of two equal ones would change with their order."""
    found = anchors(page)
    assert sorted(found) == sorted(set(found))


def test_pages_that_code_and_recipes_name_are_there() -> None:
    """Docstrings, messages and headers name pages as docs/<page>.md and `flame docs <page>`."""
    folders = ("flame_core", "orchestration", "recipes", "presets", "benchmarks", "tests")
    files = [path for folder in folders for end in ("py", "yaml", "j2") for path in (ROOT / folder).rglob(f"*.{end}")]
    for path in (*files, ROOT / "params.yaml", ROOT / "dvc.yaml"):
        text = path.read_text("utf-8")
        for page in re.findall(r"docs/([a-z/-]+)\.md", text) + re.findall(r"`flame docs ([a-z/-]+)`", text):
            assert (ROOT / "docs" / f"{page}.md").is_file(), f"{path}: {page}"
