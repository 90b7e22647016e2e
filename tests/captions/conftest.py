from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.layout import Layout
from tests.captions import tiny_models


@pytest.fixture
def layout(tmp_path) -> Layout:
    return Layout(tmp_path, tmp_path)


@pytest.fixture(scope="session")
def llm(tmp_path_factory) -> Path:
    return tiny_models.save_llm(tmp_path_factory.mktemp("models") / "llm")


@pytest.fixture(scope="session", params=["llava", "smolvlm"])
def vlm(request, tmp_path_factory) -> Path:
    save = {"llava": tiny_models.save_llava, "smolvlm": tiny_models.save_smolvlm}[request.param]
    return save(tmp_path_factory.mktemp("models") / request.param)
