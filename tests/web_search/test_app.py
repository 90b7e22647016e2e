"""The search server's answers and refusals, over HTTP on a finished run with real pictures and towers."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from flame_core.model.locate import model_of_run
from flame_core.search.ask import Searcher
from flame_core.web_search.app import LARGEST_BODY, create_app
from flame_core.web_search.service import SearchService
from tests.measuring import world
from tests.search.runs import ask_text, run_here

TEXT = "Eine grüne Sache."


@pytest.fixture
def searcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Searcher:
    params, layout = run_here(tmp_path, monkeypatch)
    return Searcher(params, layout, model_of_run(params, layout, "plain"))


@pytest.fixture
def client(searcher: Searcher) -> TestClient:
    service = SearchService(searcher, ["held-out", "all"])
    return TestClient(create_app(service, {"testserver"}), raise_server_exceptions=False)


def encoded(number: int) -> str:
    return base64.b64encode(world.jpeg(number)).decode()


def test_a_text_is_answered_as_flame_query_answers_it(client: TestClient, searcher: Searcher):
    answer = client.post("/api/search", json={"text": TEXT, "top": 4}).json()
    hits = ask_text(searcher.params, searcher.layout, searcher.model, TEXT, top=4).hits
    assert [hit["key"] for hit in answer["hits"]] == [hit.key for hit in hits]
    assert [hit["score"] for hit in answer["hits"]] == [hit.score for hit in hits]
    assert answer["nearness"]["said"] and answer["gallery"].endswith(" held-out pictures")


def test_a_picture_finds_itself_by_its_bytes_and_by_its_number(client: TestClient):
    by_bytes = client.post("/api/search", json={"picture": encoded(5), "top": 1}).json()["hits"][0]
    by_number = client.post("/api/search", json={"number": by_bytes["number"], "top": 1}).json()["hits"][0]
    assert by_bytes["key"] == by_number["key"] == world.KEYS[5]
    assert by_bytes["score"] == pytest.approx(1, abs=1e-5)


def test_a_picture_may_be_a_data_uri_or_have_line_breaks(client: TestClient):
    plain = client.post("/api/search", json={"picture": encoded(5)}).json()
    broken = base64.encodebytes(world.jpeg(5)).decode()
    assert "\n" in broken.strip()
    for picture in (broken, f"data:image/jpeg;base64,{encoded(5)}"):
        assert client.post("/api/search", json={"picture": picture}).json() == plain


def test_the_weight_of_the_facets_mixes_both_scores(searcher: Searcher):
    """The text is read elsewhere: no text of the run is stored for both ways of asking."""
    own = Searcher(searcher.params, searcher.layout, searcher.model, lambda kind, text: world.lookup(kind, [text])[0])
    client = TestClient(create_app(SearchService(own, ["held-out"]), {"testserver"}))

    def scores(weight: float) -> dict[str, float]:
        answer = client.post("/api/search", json={"text": TEXT, "top": 12, "facets": weight}).json()
        return {hit["key"]: hit["score"] for hit in answer["hits"]}

    whole, half, facets = scores(0), scores(0.5), scores(1)
    assert len(whole) == 12 and whole != facets
    for key in whole:
        assert half[key] == pytest.approx((whole[key] + facets[key]) / 2, abs=1e-6)


def test_vectors_are_those_of_the_model(client: TestClient, searcher: Searcher):
    answer = client.post("/api/encode", json={"texts": [TEXT], "pictures": [encoded(0), encoded(1)]}).json()
    np.testing.assert_array_equal(np.float32(answer["texts"]), searcher.model.encode_text(TEXT))
    pictures = searcher.model.encode_image([world.jpeg(0), world.jpeg(1)])
    np.testing.assert_array_equal(np.float32(answer["pictures"]), pictures)


def test_patches_and_pictures_of_the_index(client: TestClient, searcher: Searcher):
    answer = client.post("/api/patches", json={"number": 2, "text": TEXT}).json()
    rows, columns = answer["grid"]
    t = searcher.model.encode_text(TEXT)[0]
    likeness = np.array(answer["likeness"])
    assert likeness.shape == (rows, columns) and np.abs(likeness).max() <= 1 + 1e-6
    z = searcher.model.encode_image(searcher.gallery("held-out").picture(2))[0]
    assert np.sign(likeness.mean()) == np.sign(z @ t)  # z is the patches' mean, normalised
    served = client.get("/api/picture", params={"index": "held-out", "number": 2, "side": 32, "square": True})
    with Image.open(io.BytesIO(served.content)) as picture:
        assert picture.size == (32, 32) and picture.format == "JPEG"


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/api/search", {}, 422, "give one of text, words, picture and number, not none"),
        ("/api/search", {"text": "a", "number": 1}, 422, "not text and number"),
        ("/api/search", {"text": "a", "top": 0}, 422, "top: Input should be greater than or equal to 1"),
        ("/api/search", {"text": "a", "tpo": 3}, 422, "tpo: Extra inputs are not permitted"),
        ("/api/search", {"picture": "aGVsbG8=", "facets": 0.5}, 422, "facets go with a text"),
        ("/api/search", {"text": "  "}, 400, "the text is empty"),
        ("/api/search", {"picture": "%%"}, 400, "picture is not base64 of a file"),
        ("/api/search", {"picture": "aGVsbG8="}, 400, "cannot be used as a picture: image_unreadable"),
        ("/api/search", {"text": TEXT, "index": "/etc"}, 404, "not one of this server's: held-out, all"),
        ("/api/search", {"number": 99}, 404, "held-out has pictures 0 to 11, not 99"),
        ("/api/encode", {"texts": ["a"] * 65}, 422, "at most 64"),
        ("/api/encode", {"texts": [TEXT, ""]}, 400, "texts[1] is empty"),
        ("/api/encode", {"texts": ["\t\x00 "]}, 400, "texts[0] is empty"),
        ("/api/patches", {"number": 1, "text": " "}, 400, "the text is empty"),
        ("/api/patches", {}, 422, "give one of picture and number"),
        ("/api/patches", {"number": 99}, 404, "pictures 0 to 11"),
        ("/api/patches", {"number": 1, "words": "dog"}, 400, "has no words: only models with model.head lexical"),
        ("/api/nothing", {}, 405, "Method Not Allowed"),
    ],
)
def test_a_refusal_says_what_was_wrong(client: TestClient, path: str, body: dict, status: int, said: str):
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"] and said in answer.json()["error"]


def test_facets_of_a_text_need_a_model_with_their_prompts(client: TestClient, searcher: Searcher):
    del searcher.model.text["text"]["template"]["short"]
    for path, body in (("search", {"text": TEXT, "facets": 0.5}), ("encode", {"texts": [TEXT], "facets": True})):
        answer = client.post(f"/api/{path}", json=body)
        assert answer.status_code == 400 and "facet queries need text.template.short" in answer.json()["error"]
    assert client.post("/api/encode", json={"pictures": [encoded(0)], "facets": True}).status_code == 200


def test_a_body_that_is_no_json_is_called_that(client: TestClient):
    answer = client.post("/api/search", content="{", headers={"content-type": "application/json"})
    assert answer.status_code == 422 and answer.json()["error"].startswith("the body is not JSON: ")


def test_an_unread_text_says_what_is_missing(client: TestClient):
    answer = client.post("/api/search", json={"text": "no one embedded this"})
    said = answer.json()["error"]
    assert answer.status_code == 400 and "which is not in data/llm/tiny: run `flame fetch-llm`" in said
    assert str(Path.cwd()) not in said


def test_a_model_that_was_trained_anew_is_not_mixed_with_the_old_one(client: TestClient, searcher: Searcher):
    assert client.post("/api/search", json={"number": 1}).status_code == 200
    folder = searcher.model.folder
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content)
    kept = {path.name for path in (searcher.layout.work / "query").iterdir()}

    def refused(part: str) -> None:
        for path, asked in (
            ("search", {"number": 1, "index": "all"}),
            ("search", {"text": "nothing that was asked before"}),
            ("search", {"picture": encoded(5)}),
            ("encode", {"pictures": [encoded(5)]}),
            ("classify", {"pictures": [encoded(5)]}),
            ("patches", {"number": 1}),
        ):
            answer = client.post(f"/api/{path}", json=asked)
            assert answer.status_code == 400 and part in answer.json()["error"]
            assert "start `flame serve` again" in answer.json()["error"]

    refused("was trained anew")
    folder.rename(folder.with_name("away"))
    refused("is not there, as while")
    assert {path.name for path in (searcher.layout.work / "query").iterdir()} == kept


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-length": str(LARGEST_BODY + 1)}, 413),
    ],
)
def test_other_sites_and_huge_bodies_are_refused(client: TestClient, headers: dict, status: int):
    answer = client.post(
        "/api/search", content=b'{"number": 1}', headers={"content-type": "application/json"} | headers
    )
    assert answer.status_code == status and answer.json()["error"]


def test_the_page_loads_nothing_from_elsewhere(client: TestClient):
    page = client.get("/")
    assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    for name in ("", "search.css", "search.js"):
        assert "//" not in client.get(f"/{name}").text.replace("// The", "")
    assert client.head("/api/model").status_code == client.get("/api/model").status_code == 200
    assert client.get("/../service.py").status_code == client.get("/docs").status_code == 404
    assert "/api/search" in client.get("/openapi.json").json()["paths"]
