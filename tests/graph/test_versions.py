from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.errors import ParamsError
from flame_core.graph.versions import VERSIONS, require_versions
from flame_core.layout import Layout

ROOT = Path(__file__).parents[2]


def test_this_repository_is_of_its_own_version():
    require_versions(Layout.find(ROOT))
    assert (ROOT / VERSIONS).read_bytes() == (ROOT / "flame_core" / VERSIONS).read_bytes()


def test_a_project_of_another_version_is_refused_with_the_way_on(tmp_path):
    text = (ROOT / VERSIONS).read_text()
    train = next(line for line in text.splitlines() if line.startswith("train:"))
    (tmp_path / VERSIONS).write_text(text.replace(train, "train: 1"))
    with pytest.raises(ParamsError, match=rf"\(train 1, installed {train.split()[1]}\).*`flame upgrade`"):
        require_versions(Layout.find(tmp_path))


def test_a_folder_without_the_file_claims_nothing(tmp_path):
    require_versions(Layout.find(tmp_path))
