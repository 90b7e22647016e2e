"""Answers of a server that fails in every way."""

from __future__ import annotations

import logging
import sqlite3
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from flame_core.captions.server.answers import Answers
from flame_core.captions.server.asking import Pace, Server, ask
from flame_core.captions.server.question import question
from flame_core.data.addresses.request import seconds_to_rest
from flame_core.data.shards import Sample, write_shard
from flame_core.errors import InputError, ParamsError, ResourceError
from flame_core.params import ServerCaptioner
from tests.captions.pictures import disc, sample
from tests.captions.server.chat import FINGERPRINT, KEY, MODEL, chat_server

QUICK = Pace(tries=3, backoff=(0.01,), rest=0.05)


def captioner(**changes) -> ServerCaptioner:
    return ServerCaptioner.model_validate(
        {"captioner": "server", "model": "tiny", "prompt": "Say {caption}", "picture": False} | changes
    )


def samples(*captions: str) -> list[Sample]:
    return [sample(f"k{number}", captions={"en": [text]}) for number, text in enumerate(captions)]


def run(folder, given: list[Sample], chat, params=None, *, pace=QUICK, requests=4, timeout=1.0, key=KEY, again=False):
    """The answers to these samples, in order: (reason, text)."""
    shard = folder / "00000.tar"
    write_shard(shard, given)
    params = params or captioner()
    server = Server(chat if isinstance(chat, str) else chat.address, key, requests, timeout)
    ask([shard], [params], lambda: Answers(folder / "answers.sqlite"), server, samples=2, again=again, pace=pace)
    return kept(folder, given, params)


def kept(folder, given: list[Sample], params=None):
    answers = Answers(folder / "answers.sqlite")
    try:
        return [answers.get(question(params or captioner(), one).digest) for one in given]
    finally:
        answers.close()


FINAL = {
    "status-400": "rejected", "status-422": "rejected", "status-403": "rejected", "huge": "too_large",
    "empty": "no_text", "null": "no_text", "filtered": "content_filter", "declined": "declined",
}  # fmt: skip
PASSING = {
    "hang": "timeout", "drip": "timeout", "cut": "cut", "reset": "reset", "truncated": "not_json", "html": "not_json",
    "stream": "not_json", "nothing": "no_choices", "nonsense": "no_choices", "routed": "http_5xx",
    "status-500": "http_5xx", "status-502": "http_5xx", "status-503": "http_5xx", "status-408": "timeout",
}  # fmt: skip


def test_every_way_to_fail_has_its_reason_and_costs_its_sample_alone(tmp_path):
    words = ["a dog", *FINAL, *PASSING, "a cat"]
    with chat_server() as chat:
        got = run(tmp_path, samples(*words), chat)
    reasons = dict(zip(words, (answer.reason for answer in got), strict=True))
    assert reasons == {"a dog": None, "a cat": None, **FINAL, **PASSING}
    assert (got[0].text, got[-1].text) == ("seen Say a dog without", "seen Say a cat without")
    asked = {word: chat.log.count(f"Say {word}") for word in words}
    assert {word: asked[word] for word in FINAL} == dict.fromkeys(FINAL, 1)
    assert {word: asked[word] for word in PASSING} == dict.fromkeys(PASSING, QUICK.tries + 1)  # and the last pass
    assert [answer.tries for answer in got[1 : len(FINAL) + 1]] == [1] * len(FINAL)
    assert got[words.index("cut")].tries == QUICK.tries + 1


def test_what_passes_is_answered_and_the_answer_says_who_wrote_it(tmp_path):
    words = [f"{what}-2" for what in ("cut", "reset", "truncated", "html", "nothing", "routed", "rests", "hang")]
    with chat_server() as chat:
        got = run(tmp_path, samples(*words), chat)
    assert [answer.reason for answer in got] == [None] * len(words)
    assert [answer.tries for answer in got] == [3, 3, 3, 3, 3, 3, 1, 3]  # to rest is no try
    assert {(answer.model, answer.fingerprint, answer.prompt_tokens, answer.completion_tokens) for answer in got} == {
        (MODEL, FINGERPRINT, 100, 7)
    }


def test_nothing_is_asked_twice_and_answers_are_settled_when_they_came(tmp_path):
    given = samples("a dog", "a cat", "a dog", "cut", "status-400")
    with chat_server() as chat:
        first = run(tmp_path, given, chat)
        assert chat.log.count("Say a dog") == 1  # equal requests are one
        chat.say, before = "other words", len(chat.log)
        assert run(tmp_path, given, chat)[:3] == first[:3]
        assert set(chat.log[before:]) == {"Say cut"}  # what may pass
        before = len(chat.log)
        assert run(tmp_path, given, chat, again=True)[:3] == first[:3]
        assert set(chat.log[before:]) == {"Say cut", "Say status-400"}
        run(tmp_path, [*given, *samples("a bird")], chat, captioner(seed=2))
    assert chat.answered["Say a dog"] == 2  # another seed is another question


def test_a_damaged_answer_is_asked_for_again(tmp_path):
    given = samples("a dog", "a cat")
    with chat_server() as chat:
        run(tmp_path, given, chat)
        file = sqlite3.connect(tmp_path / "answers.sqlite")
        request = question(captioner(), given[0]).digest
        file.execute("UPDATE answers SET content = replace(content, 'dog', 'dot') WHERE request = ?", (request,))
        file.commit()
        file.close()
        assert run(tmp_path, given, chat)[0].text == "seen Say a dog without"
        assert [chat.answered[f"Say a {word}"] for word in ("dog", "cat")] == [2, 1]
    (tmp_path / "answers.sqlite").write_bytes(b"no database, but long enough to be one" * 100)
    for name in ("answers.sqlite-wal", "answers.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"answers\.sqlite: the answers .* move the file away"):
        kept(tmp_path, given)


def test_a_storm_of_429_ends_with_every_answer(tmp_path):
    given = samples(*(f"number {number} of many" for number in range(60)))
    with chat_server(at_once=2, latency=0.01) as chat:
        got = run(tmp_path, given, chat, requests=16, pace=Pace(tries=1, backoff=(0.01,), rest=0.02))
    assert [answer.reason for answer in got] == [None] * 60
    assert chat.rejected > 0 and max(chat.answered.values()) == 1
    assert chat.rejected < 60  # fewer requests were sent after it


def test_a_server_may_say_with_a_date_how_long_it_rests():
    later = datetime.now(UTC) + timedelta(seconds=100)
    assert 95 < seconds_to_rest(format_datetime(later, usegmt=True)) <= 100
    assert (seconds_to_rest("7"), seconds_to_rest("99999"), seconds_to_rest("soon")) == (7.0, 600.0, 60.0)


def test_many_requests_are_in_flight_and_no_more_than_allowed(tmp_path):
    given = samples(*(f"number {number} of many" for number in range(40)))
    with chat_server(latency=0.05) as chat:
        run(tmp_path, given, chat, requests=8)
    assert chat.most_open == 8


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["quota"], ResourceError, r"wants to be paid first, which says: You exceeded your quota\..*run the same"),
        (["status-402"], ResourceError, "wants to be paid first"),
        (["status-404"], ParamsError, "knows no model tiny"),
        (["moved"], ParamsError, "answers with status 302"),
        (["status-400"] * 5, InputError, r"rejects every request for tiny with status 400, which says: no: \*\*\*"),
        (["status-500"] * 5, ResourceError, r"does not answer for tiny \(http_5xx with status 500\)"),
        (["rests"], ResourceError, "rate_limited with status 429"),
    ],
)
def test_what_concerns_every_request_stops_the_stage_with_the_servers_words(tmp_path, words, error, message):
    given = samples(*(f"{number} {word}" for number, word in enumerate(words)))
    pace = Pace(tries=2, backoff=(0.01,), rest=0.05, patience=0.5)
    with chat_server() as chat, pytest.raises(error, match=message) as caught:
        run(tmp_path, given, chat, pace=pace)
    assert KEY not in str(caught.value)
    assert all(answer is None or answer.may_pass for answer in kept(tmp_path, given))  # it is asked again


def test_a_server_that_is_not_there_and_a_wrong_key(tmp_path):
    given = samples(*(f"number {number}" for number in range(6)))
    with chat_server() as chat:
        address = chat.address
        with pytest.raises(
            ParamsError, match=r"does not accept FLAME_CAPTION_KEY, which says: wrong key Bearer \*\*\*"
        ):
            run(tmp_path, given, chat, key="sk-another")
        with pytest.raises(ParamsError, match="knows no model tiny, or is no chat API"):
            run(tmp_path, given, f"http://127.0.0.1:{chat.port}/api")
    with pytest.raises(ResourceError, match=r"does not answer for tiny \(refused\); is it running\?"):
        run(tmp_path, given, address)
    assert all(answer.may_pass for answer in kept(tmp_path, given) if answer)


def test_a_server_that_goes_away_meanwhile_stops_the_stage_and_the_rest_is_asked_later(tmp_path):
    given = samples(*(f"number {number} of many" for number in range(30)))
    with chat_server() as chat:
        run(tmp_path, given[:20], chat)
        address = chat.address
    with pytest.raises(ResourceError, match="the answers that came are kept"):
        run(tmp_path, given, address)
    with chat_server() as chat:
        got = run(tmp_path, given, chat)
    assert [answer.reason for answer in got] == [None] * 30
    assert sorted(chat.log) == sorted(f"Say number {number} of many" for number in range(20, 30))


def test_poisoned_samples_alone_do_not_stop_a_retry(tmp_path):
    given = samples("a dog", *(f"{number} status-500" for number in range(8)))
    with chat_server() as chat:
        for again in (False, True):
            got = run(tmp_path, given, chat, requests=1, again=again)
            assert [answer.reason for answer in got] == [None, *["http_5xx"] * 8]


def test_progress_says_rate_success_reasons_and_tokens(tmp_path, caplog):
    with chat_server() as chat, caplog.at_level(logging.INFO, "flame_core"):
        run(tmp_path, samples("a dog", "a cat", "a bird", "declined"), chat)
    (line,) = [each.getMessage() for each in caplog.records if "captions asked for" in each.getMessage()]
    assert line.startswith("4 captions asked for, ")
    assert line.endswith("/s, 75.0% good; declined 25.0%; 428 tokens")


def test_the_picture_and_the_sampling_are_sent(tmp_path):
    params = captioner(
        picture=True, prompt="Describe it.", system="Be brief.", detail="low", top_p=0.9, seed=3, max_new_tokens=20,
        extra={"max_tokens": None, "max_completion_tokens": 20, "chat_template_kwargs": {"enable_thinking": False}},
    )  # fmt: skip
    one = sample("k", disc("red"))
    with chat_server() as chat:
        (got,) = run(tmp_path, [one], chat, params)
    assert got.text == f"seen Describe it. {len(one.jpeg)}"
    (request,) = chat.requests
    picture = request["messages"][1]["content"][0]["image_url"]
    assert picture["url"].startswith("data:image/jpeg;base64,") and picture["detail"] == "low"
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    del request["messages"]
    assert request == {
        "model": "tiny", "temperature": 0.0, "top_p": 0.9, "seed": 3, "max_completion_tokens": 20,
        "chat_template_kwargs": {"enable_thinking": False},
    }  # fmt: skip
