from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from flame_core.inline_pictures import thumbnail
from flame_core.measuring.measures import checks, evaluate
from flame_core.pages.examples import concepts, failures, picture_queries, text_query
from flame_core.pages.render import percent, points, web_address
from flame_core.pages.report import (
    card_groups,
    confusion_rows,
    descriptions,
    language_bars,
    origin,
    render_report,
    report_charts,
)
from flame_core.params import PromoteParams
from tests.measuring import world


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.open = [], "", []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def measured(tmp_path, mark="", classes=None, **options):
    params = world.params(tmp_path, **options)
    captions = world.captions(mark)
    z = world.pictures_that_know("en", captions)
    z[5] = -z[5]  # one failure
    classes = world.classes() if classes is None else classes
    ceilings = {"de": {"recall@10": 0.83}}
    return params, captions, evaluate(params, z[:, None], world.KEYS, captions, classes, world.lookup, ceilings)


def page(tmp_path, mark="", classes=None, facts=None, **options):
    params, captions, evaluation = measured(tmp_path, mark, classes, **options)
    verdict = checks(evaluation, params.evaluate)
    about = world.facts(params, **(facts or {}))
    return render_report(evaluation, about, verdict, captions, world.lookup, world.jpeg)


def test_the_page_fetches_nothing(tmp_path):
    source = page(tmp_path)
    parsed = Page(source)
    assert parsed.open == []
    for tag, attributes in parsed.tags:
        assert tag not in (
            "script",
            "link",
            "iframe",
            "object",
            "embed",
            "base",
            "form",
            "image",
            "use",
            "foreignobject",
        )
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/jpeg;base64,", "#")), (tag, name, value)
        assert "url(" not in (attributes.get("style") or "")
    assert not re.search(r"@import|url\(|@font-face|expression\(", source)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", source))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    policy = next(a["content"] for t, a in parsed.tags if t == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_captions_are_escaped_everywhere(tmp_path):
    mark = '<script>alert(1)</script>"><img src=x onerror=alert(2)> \u202e{{ 7 * 7 }}'
    source = page(tmp_path, mark)
    parsed = Page(source)
    assert parsed.open == []
    assert "script" not in [tag for tag, _ in parsed.tags]
    assert all("onerror" not in attributes for _, attributes in parsed.tags)
    assert all(a["src"].startswith("data:") for tag, a in parsed.tags if tag == "img")
    assert "<script>alert(1)</script>" in parsed.text  # as text
    assert "{{ 7 * 7 }}" in parsed.text


def test_class_names_are_escaped_everywhere(tmp_path):
    mark = "<img src=x onerror=alert(1)>\"'><b>"
    classes = {key: f"{mark}{name}" for key, name in world.classes().items()}
    parsed = Page(page(tmp_path, classes=classes))
    assert parsed.open == []
    assert all("onerror" not in attributes for _, attributes in parsed.tags)
    assert f"{mark}toys" in parsed.text


def test_a_link_leads_to_a_web_page_or_nowhere():
    assert web_address("https://example.org/a?b#c") == "https://example.org/a?b#c"
    for url in ("javascript:alert(1)", "data:text/html,x", " https://x", "//x", "", None):
        assert web_address(url) == "#"


def test_the_same_run_gives_the_same_bytes(tmp_path):
    assert page(tmp_path) == page(tmp_path)


def test_every_picture_says_what_it_shows(tmp_path):
    images = [a for tag, a in Page(page(tmp_path)).tags if tag == "img"]
    assert len(images) > 20
    assert all(re.fullmatch(r"A \w+ thing\.", image["alt"]) for image in images)


def test_numbers_stand_beside_chance_interval_and_ceiling(tmp_path):
    _, _, evaluation = measured(tmp_path)
    m = evaluation.metrics
    text = Page(page(tmp_path)).text
    for name in evaluation.headline:
        head, _, tail = name.rpartition("/")
        assert percent(m[name]) in text
        assert percent(m[f"{head}/chance/{tail}"]) in text
        assert f"{m[name + '/low'] * 100:.1f} – {percent(m[name + '/high'])}" in text
    assert percent(m["classification/majority"]) in text
    assert percent(0.83) in text  # the ceiling of German
    assert "1,234,567 weights" in text
    assert "near_duplicate_of_val" in text


def test_missing_parts_are_said_or_left_out(tmp_path):
    bare = page(tmp_path, classes={}, facts={"training": [], "ledger": []}, languages=["en", "xx"])
    parsed = Page(bare)
    assert parsed.open == []
    assert "Skipped: the validation pictures have fewer than two top-level categories" in parsed.text
    assert "Every pair became a sample" in parsed.text
    assert "No validation picture has a caption in: xx" in parsed.text
    assert "Learning rate" not in parsed.text
    targets = {a["href"][1:] for tag, a in parsed.tags if tag == "a"}
    assert targets <= {a["id"] for _, a in parsed.tags if "id" in a}


def test_a_class_without_a_measured_picture_has_no_recall(tmp_path):
    _, _, evaluation = measured(tmp_path, classes={**world.classes(), "not measured": "trains"})
    rows = {row["name"]: row for row in confusion_rows(evaluation.classification)}
    assert rows["trains"]["count"] == 0 and rows["trains"]["recall"] is None
    found = page(tmp_path, classes={**world.classes(), "not measured": "trains"})
    cells = re.search(r'trains <span class="quiet">0</span></th>(.*?)</tr>', found, re.DOTALL)
    assert cells and cells[1].endswith('<td class="n">–</td>') and percent(float("nan")) not in found
    recalls = [rows[name]["recall"] for name in world.CLASSES]
    assert np.mean(recalls) == pytest.approx(evaluation.metrics["classification/mean_per_class"], abs=1e-6)


def test_the_foot_names_what_the_page_follows_from(tmp_path):
    text = Page(page(tmp_path)).text
    foot = text[text.index("Made by flame evaluate plain") :]
    assert "weights0123456789ab" in foot and "shards5a5a5a5a5a5a" in foot and "embeddingse7e7e7e7e7e7" in foot
    assert "flame lineage data/models/plain" in foot
    assert not re.search(r"20\d\d-\d\d|commit [0-9a-f]{7}", foot)  # no date, no commit


def test_the_digest_of_params_is_of_those_that_the_page_follows_from(tmp_path):
    def digest(**options):
        params = world.params(tmp_path, **options)
        return origin(world.facts(params))["params of training and evaluation"]

    one = digest()
    assert re.fullmatch(r"[0-9a-f]{12}", one) and one == digest()
    assert one != digest(confidence=0.9)
    other = world.params(tmp_path).model_copy(update={"promote": PromoteParams(tolerance=0.5)})
    assert origin(world.facts(other))["params of training and evaluation"] == one  # evaluation does not read it


def test_every_card_stands_below_its_heading(tmp_path):
    params, _, evaluation = measured(tmp_path)
    groups = card_groups(evaluation, params)
    assert list(groups) == ["Recall@10 on held-out pictures", "Zero-shot classification of held-out pictures"]
    recall, classes = groups.values()
    assert len(recall) == 4 and all("majority" not in card for card in recall)
    assert [card["value"] for card in classes] == [evaluation.metrics["classification/top1"]]
    text = Page(page(tmp_path)).text
    assert text.index("unseen languages") < text.index("Zero-shot classification of")
    assert text.index("Zero-shot classification of") < text.index("Right class first")
    assert len(card_groups(measured(tmp_path, classes={})[2], params)) == 1


def test_the_tower_is_described_as_it_is(tmp_path):
    text = " ".join(Page(page(tmp_path)).text.split())
    assert "Vision transformer: 1 block of width 24, patches of 8 px, pictures of 32 px, 1,234,567 weights" in text
    assert "timm’s vit_tiny_patch16_224 with img_size 32, embed_dim 24" in text
    plain = " ".join(Page(page(tmp_path, facts={"tower": None})).text.split())
    assert "vit_tiny_patch16_224, pictures of 32 px" in plain


@pytest.mark.parametrize(
    ("names", "said"),
    [(["raw/1"], "1 of 1 facet embedding (raw, short)"), ([f"raw/{i}" for i in range(9)], "6 of 9 facet embeddings")],
)
def test_no_more_texts_are_drawn_than_there_are(tmp_path, names, said):
    assert said in " ".join(Page(page(tmp_path, facts={"config": {"facets": names}})).text.split())


def test_headings_of_tables_have_a_scope_and_the_contents_stay_in_sight(tmp_path):
    source = page(tmp_path)
    headings = [attributes for tag, attributes in Page(source).tags if tag == "th"]
    assert len(headings) > 10 and all(each.get("scope") in ("col", "row") for each in headings)
    main = source[source.index("<main>") :]
    assert main.index("<nav") < main.index("<section")  # a child of main, along which it sticks
    assert "position: sticky" in source


def test_what_auto_chose_is_said(tmp_path):
    config = {**world.facts(world.params(tmp_path)).config, "samples": 51}
    plain = Page(page(tmp_path, facts={"config": config})).text
    assert "chosen for" not in plain
    chosen = Page(page(tmp_path, facts={"config": {**config, "auto": ["batch_size", "epochs"]}})).text
    assert "(chosen for 51 pictures: batch_size, epochs)" in chosen


def test_a_failed_gate_is_shown(tmp_path):
    text = Page(page(tmp_path, recall_at=[1], gates={"min_recall_over_chance": 99})).text
    assert text.count("✗") == 2
    assert "✓ recall" not in text


def test_a_failure_that_does_not_block_is_shown_and_is_no_success(tmp_path):
    """Recall@10 of twelve pictures is nearly all chance, and no caption is in Esperanto."""
    text = Page(page(tmp_path, languages=["en", "eo"])).text
    assert text.count("! not passed: 12 pictures in en are too few: a random order has a recall@10 of") == 2
    ways = re.findall(r"gate measures nothing, (picture → text|text → picture)", text)
    assert sorted(ways) == ["picture → text", "text → picture"]
    assert "! not passed: every language of evaluate.languages has a validation caption: eo" in text
    assert "✓ lower end" not in text and "✗" not in text


def test_a_floor_of_a_language_that_was_not_measured_is_shown(tmp_path):
    text = Page(page(tmp_path, recall_at=[1], gates={"language_floors": {"eo": 2.0}})).text
    assert text.count("✗ lower end of recall@1 in eo over that of a random order") == 2
    assert "not measured (at least 2)" in text


def test_bars_are_sorted_and_the_training_language_stands_out(tmp_path):
    params, _, evaluation = measured(tmp_path, recall_at=[1])
    bars = language_bars(evaluation, "en", 1)
    means = np.mean([[bar.value for bar in both] for both in bars.values()], axis=0)
    assert list(means) == sorted(means, reverse=True)
    for both in bars.values():
        assert [bar.label for bar in both if bar.main] == ["English"]
        assert {bar.label for bar in both} == {"English", "German", "French"}
    assert set(report_charts(evaluation, world.facts(params))) == {
        "recall_image_to_text", "recall_text_to_image", "loss", "learning_rate",
        "facets_image_to_text", "facets_text_to_image",
    }  # fmt: skip


def test_concepts_show_right_answers_as_the_metrics_count_them(tmp_path):
    _, _, evaluation = measured(tmp_path)
    shown = concepts(evaluation, world.lookup)
    assert len({concept.queries[0].text for concept in shown}) == len(shown) == 6
    for concept in shown:
        first, *others = concept.queries
        assert first.language == "en"
        assert all(query.language != "en" for query in others)
        for query in concept.queries:
            at = [place for place, hit in enumerate(query.found, start=1) if hit.right]
            if not {0, 1} & {hit.picture for hit in query.found if hit.right}:  # these two are tied
                assert query.rank == at[0] if at else query.rank > len(query.found)
            assert [hit.score for hit in query.found] == sorted((hit.score for hit in query.found), reverse=True)
    german = {query.language: query.gallery for concept in shown for query in concept.queries}["de"]
    assert german == 10


def test_shared_captions_mark_all_their_pictures(tmp_path):
    _, _, evaluation = measured(tmp_path)
    text = evaluation.languages["en"].pairing.texts.index("A green thing.")
    query = text_query(evaluation, world.lookup, "en", text, 3)
    assert {hit.picture for hit in query.found if hit.right} == {0, 1}


def test_pictures_bring_up_their_own_captions(tmp_path):
    _, _, evaluation = measured(tmp_path)
    for query in picture_queries(evaluation, world.lookup):
        if query.picture != 5:
            assert query.rank == 1
            assert query.found[0].right
            assert query.found[0].text == f"A {world.COLOURS[max(query.picture, 1)]} thing."


def test_failures_are_the_worst_and_not_padded_with_successes(tmp_path):
    _, _, evaluation = measured(tmp_path)
    (worst,) = failures(evaluation, world.lookup)
    assert worst.picture == 5
    assert worst.query.text == "A white thing."
    assert worst.query.rank == 12
    assert not any(hit.right for hit in worst.query.found)


def test_descriptions_prefer_the_training_language():
    captions = [c for c in world.captions() if not (c.language == "en" and c.key == "made_04")]
    found = descriptions([*world.KEYS, "nobody"], captions, "en")
    assert found[2] == "A blue thing."
    assert found[4] == "Eine schwarze Sache."
    assert found[-1] == "nobody"


@pytest.mark.parametrize(("mode", "size"), [("RGB", (900, 30)), ("L", (20, 20)), ("CMYK", (300, 400))])
def test_thumbnails(mode, size):
    file = io.BytesIO()
    Image.new(mode, size).save(file, "JPEG")
    uri = thumbnail(file.getvalue())
    assert uri == thumbnail(file.getvalue())
    with Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")))) as small:
        assert max(small.size) == min(160, max(size))
        assert small.mode == "RGB"


def test_numbers_for_readers():
    assert percent(0.1234) == "12.3\u202f%"
    assert [points(value) for value in (0.012, -0.0042, -0.0001)] == ["+1.2", "−0.4", "+0.0"]
