"""robots.txt by RFC 9309; the examples of its section 5 among them."""

from __future__ import annotations

import time

import pytest

from flame_core.data.addresses.robots import parse

EXAMPLE = """
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: FLAME-mlops/2
User-Agent: bazbot
Disallow: /example/page.html
Disallow: /private*x/$
Disallow: /*.php$ # comment
"""


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/example/page.html", False),
        ("/example/page.htm", True),
        ("/a.gif", True),  # the group of * does not count
        ("/private/1/x/", False),
        ("/private/1/x/y", True),
        ("/a.php", False),
        ("/a.php?q", True),
    ],
)
def test_our_group(path: str, allowed: bool):
    assert parse(EXAMPLE).allows(path) == allowed


def test_the_group_of_all_others_and_the_longest_rule():
    rules = parse("User-agent: *\nDisallow: /a\nAllow: /a/b\nDisallow: /a/b/c\nAllow: /same\nDisallow: /same\n")
    assert [rules.allows(path) for path in ("/a", "/a/b", "/a/b/c", "/same", "/")] == [False, True, False, True, True]
    assert parse("").allows("/") and parse("User-agent: other\nDisallow: /").allows("/x")
    assert not parse("User-agent: *\nDisallow: /ä").allows("/%C3%A4")


@pytest.mark.parametrize(
    ("rule", "path", "matches"),
    [  # the table of section 2.2.2 first
        ("/foo/bar?baz=quz", "/foo/bar?baz=quz", True),
        ("/foo/bar?baz=https://foo.bar", "/foo/bar?baz=https://foo.bar", True),
        ("/foo/bar/\u30c4", "/foo/bar/%E3%83%84", True),
        ("/foo/bar/%E3%83%84", "/foo/bar/%E3%83%84", True),
        ("/foo/bar/%62%61%7A", "/foo/bar/baz", True),
        ("/%7Ejoe/", "/~joe/a", True),
        ("/~joe/", "/%7ejoe/a", True),
        ("/%e3%83%84", "/%E3%83%84", True),
        ("/a b", "/a%20b", True),
        ("/a|b", "/a%7Cb", True),
        ("/a%2Fb", "/a%2fb", True),
        ("/a%2Fb", "/a/b", False),  # an escape of a slash is no slash
        ("/photo_%281%29", "/photo_(1).jpg", True),  # of other marks it is the mark, as yarl asks for it
        ("/photo_(1)", "/photo_%281%29.jpg", True),
        ("/a[b]", "/a%5Bb%5D", True),
        ("/a%b", "/a%25b", True),
        ("/a$b", "/a$b", True),
        ("/a%24", "/a$", True),
        ("/a$", "/a$", False),
        ("/*%2A", "/x*", True),
        ("/*%2A", "/xy", False),
        ("/a?q=%2f", "/a?q=/", True),
    ],
)
def test_escapes_are_compared_as_what_they_stand_for(rule: str, path: str, matches: bool):
    assert parse(f"User-agent: *\nDisallow: {rule}").allows(path) != matches


def test_a_hostile_pattern_takes_no_time():
    rules = parse("User-agent: *\nDisallow: /" + "*a" * 2000 + "b$\n")
    start = time.monotonic()
    assert rules.allows("/" + "a" * 4000)
    assert time.monotonic() - start < 1
