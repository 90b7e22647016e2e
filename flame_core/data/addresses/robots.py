"""robots.txt by RFC 9309: which paths of a host may be fetched.

The groups that name us count, else those of `*`. Of the rules that match a path, the longest decides, and `Allow` if
two are equally long. `*` stands for any characters and a final `$` for the end. A file that does not exist allows all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from flame_core.data.addresses.opt_out import TOKEN

LARGEST = 500 * 1024  # bytes that are read, as the RFC asks
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_PLAIN = "/?%&=+$*!'(),;:@"  # what is no escape, besides letters, digits and `_.-~`


@dataclass(frozen=True)
class Rules:
    """(pattern of a path, whether it may be fetched), of the group that counts."""

    rules: tuple[tuple[str, bool], ...] = ()

    def allows(self, path: str) -> bool:
        """Whether a path with its query may be fetched."""
        path = _normal(path or "/").replace("*", "%2A").replace("$", "%24")
        found = [(len(pattern), allowed) for pattern, allowed in self.rules if _matches(pattern, path)]
        return max(found)[1] if found else True


def parse(text: str) -> Rules:
    """The rules for us in a robots.txt."""
    groups: dict[str, list[tuple[str, bool]]] = {}
    agents: list[str] = []
    in_rules = True
    for line in text.removeprefix("\ufeff").splitlines():
        name, colon, value = line.partition("#")[0].partition(":")
        name, value = name.strip().lower(), value.strip()
        if not colon:
            continue
        if name == "user-agent":
            agents = [] if in_rules else agents
            in_rules = False
            agents.append(value.partition("/")[0].strip().lower())
            groups.setdefault(agents[-1], [])
        elif name in ("allow", "disallow"):
            in_rules = True
            for agent in agents if value else ():
                groups[agent].append((_normal(value), name == "allow"))
    return Rules(tuple(groups.get(TOKEN, groups.get("*", []))))


def _normal(path: str) -> str:
    """A path with its query in the form in which rules and addresses are compared: ASCII with few escapes.

    An escape of `/` or `?` in a path is another character than these, and so is one of `*` or `$` in a rule.
    """
    path, mark, query = path.partition("?")
    return _escaped(path, "%*$/?") + mark + _escaped(query, "%*$")


def _escaped(text: str, kept: str) -> str:
    """Undo escapes of ASCII, except of what is `kept`; escape all that is not plain."""

    def plain(found: re.Match[str]) -> str:
        letter = chr(int(found[1] or "25", 16))
        return letter if "!" <= letter <= "~" and letter not in kept else f"%{ord(letter):02X}"

    return quote(_ESCAPE.sub(plain, text), safe=_PLAIN)


def _matches(pattern: str, path: str) -> bool:
    """Whether a pattern matches the start of a path, or all of it with a final `$`; in linear time."""
    end = pattern.endswith("$")
    first, *others = (pattern[:-1] if end else pattern).replace("$", "%24").split("*")
    if not path.startswith(first):
        return False
    place = len(first)
    last = others.pop() if end and others else ""
    for part in others:
        found = path.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    if not end:
        return True
    return path.endswith(last) and len(path) - len(last) >= place if "*" in pattern else len(path) == place
