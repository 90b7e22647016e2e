"""The server says what pictures show by a tuned head, as `flame classify` does."""

# ruff: noqa: F811  (fixtures of another file)
from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from starlette.testclient import TestClient

import flame_core
from flame_core.digest import file_sha256, write_json
from flame_core.search.ask import Searcher
from flame_core.tuning.head import LinearProbe
from tests.measuring import world
from tests.web_search.test_app import client, encoded, searcher  # noqa: F401


def write_head(searcher: Searcher, seed: int = 0) -> None:
    """A random probe on the model's vectors, as `flame tune` stores it."""
    model = searcher.model
    torch.manual_seed(seed)
    folder = searcher.layout.heads / model.folder.name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(LinearProbe(model.dim, 3).state_dict(), folder / "head.safetensors")
    identity = {"weights": file_sha256(model.folder / "model.safetensors"), "config": ""}
    config = {"identity": identity, "features": "z", "classes": ["a", "b", "c"], "dims": model.dim}
    write_json(folder / "config.json", {**config, "preset": "lp", "ratio": 4})


def test_classes_are_those_of_the_head(client: TestClient, searcher: Searcher):
    missing = client.post("/api/classify", json={"pictures": [encoded(0)]})
    assert missing.status_code == 404 and "there is no head for" in missing.json()["error"]
    write_head(searcher)
    answer = client.post("/api/classify", json={"pictures": [encoded(0), encoded(1)], "top": 2}).json()
    head = flame_core.load_head(searcher.layout.heads / searcher.model.folder.name, searcher.model)
    wanted = head.classify([world.jpeg(0), world.jpeg(1)], top=2)
    assert [[row["class"] for row in own] for own in answer["pictures"]] == [
        [name for name, _ in own] for own in wanted
    ]
    shares = [row["probability"] for row in answer["pictures"][0]]
    assert shares == pytest.approx([share for _, share in wanted[0]]) and np.sum(shares) < 1


def test_what_is_no_picture_is_refused(client: TestClient, searcher: Searcher):
    write_head(searcher)
    for pictures, status in (([], 422), (["%%"], 400), (["aGVsbG8="], 400)):
        assert client.post("/api/classify", json={"pictures": pictures}).status_code == status


def test_a_head_that_was_tuned_anew_answers_from_then_on(client: TestClient, searcher: Searcher):
    def asked() -> list[dict]:
        return client.post("/api/classify", json={"pictures": [encoded(0)]}).json()["pictures"]

    write_head(searcher)
    before = asked()
    write_head(searcher, seed=1)
    after = asked()
    head = flame_core.load_head(searcher.layout.heads / searcher.model.folder.name, searcher.model)
    ((name, share), *_) = head.classify([world.jpeg(0)])[0]
    assert after != before and after[0][0] == {"class": name, "probability": pytest.approx(share)}
