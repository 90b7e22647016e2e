"""Reads YAML written by people, within bounds; an error names the key and line.

Besides what YAML itself forbids, these are refused: bytes that are not UTF-8, a key given twice (YAML would silently
drop the first), values that JSON does not have (dates, binary, NaN), a text or number that no file, digest or command
can hold, and files without bound: too large, nested too deeply, or expanded by aliases of aliases.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from flame_core.errors import ParamsError
from flame_core.names import shown

MOST_BYTES = 1_000_000
MOST_VALUES = 100_000  # after every alias is replaced by its value
DEEPEST = 50
MOST_TWICE = 10  # keys given twice that one error names
_TAG = "tag:yaml.org,2002:"
_PLAIN = {f"{_TAG}{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}
_UNUSABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_CONFLICT = re.compile(r"^(<{7} .*|>{7} .*)$", re.MULTILINE)  # what git writes around both sides
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Placed(NamedTuple):
    """A YAML value with the line of every key, sections and list items too, and keys that are given twice."""

    value: Any
    lines: dict[tuple[str, ...], int | None]
    twice: list[str]  # a message for each; the last of the values counts


def read_yaml_file(path: Path) -> Any:
    """The value in a YAML file.

    Raises:
        ParamsError: names the file, and the key and line at fault.
    """
    return _single(read_placed_file(path, str(path)))


def read_placed_file(path: Path, where: str) -> Placed:
    """The value in a YAML file with its lines; messages about its content name `where`.

    Raises:
        ParamsError: names the file, and the key and line at fault; keys given twice are told by the result.
    """
    if path.exists() and not path.is_file():
        raise ParamsError(f"{path} is not a file")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise ParamsError(
            f"{path} does not exist; run the command in the folder of a project (`flame init` makes one)"
        ) from None
    except OSError as error:
        raise ParamsError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise ParamsError(f"{path} is too large: more than {MOST_BYTES:,} bytes")
    try:
        text = content.decode("utf-8-sig")  # DVC reads the same file, as UTF-8 only
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ParamsError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save it as UTF-8"
        ) from None
    return read_placed_text(text, where)


def read_yaml_text(text: str, where: str) -> Any:
    """The value of a YAML text; messages name `where` it comes from.

    Raises:
        ParamsError: names `where`, and the key and line at fault.
    """
    return _single(read_placed_text(text, where))


def _single(placed: Placed) -> Any:
    if placed.twice:
        raise ParamsError("\n".join(placed.twice[:MOST_TWICE]))
    return placed.value


def read_placed_text(text: str, where: str) -> Placed:
    """The value of a YAML text with its lines; messages name `where` it comes from.

    Raises:
        ParamsError: names `where`, and the key and line at fault; keys given twice are told by the result.
    """
    if len(text) > MOST_BYTES:
        raise ParamsError(f"{where} is too large: more than {MOST_BYTES:,} characters")
    try:
        _check_depth(text, where)
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return Placed(None, {}, [])
            checker = _Checker(where, loader)
            checker.visit(node, ())
            value = loader.construct_document(node)  # which also replaces merges by the keys that they stand for
            return Placed(value, dict(_lines(node, ())), checker.twice)
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeEncodeError) as error:  # a command's argument may hold bytes that are not text
        raise ParamsError(_not_yaml(text, where, error)) from None


def _not_yaml(text: str, where: str, error: Exception) -> str:
    """Why a text is no YAML, with the line."""
    if conflict := _CONFLICT.search(text):
        line = text.count("\n", 0, conflict.start()) + 1
        return f"{where}, line {line}: a merge left a conflict here: keep one side, and remove the lines of git's marks"
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"{where} is not valid YAML: {error}"
    mark = error.problem_mark
    at = text.splitlines()[mark.line][mark.column :] if mark.line < len(text.splitlines()) else ""
    hint = "; a tab cannot indent a line in YAML, use spaces" if at.startswith("\t") else ""
    return f"{where} is not valid YAML: line {mark.line + 1}, column {mark.column + 1}: {error.problem}{hint}"


def _check_depth(text: str, where: str) -> None:
    """Refuse deep nesting before anything recurses."""
    depth = 0
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                line = event.start_mark.line + 1
                raise ParamsError(f"{where}, line {line}: values are nested more than {DEEPEST} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _lines(node: yaml.Node, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int | None]]:
    """(key, line) of all keys and list items below a node."""
    if isinstance(node, yaml.MappingNode):
        items = [(key.value, key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        items = [(str(number), item, item) for number, item in enumerate(node.value)]
    else:
        return
    for part, marked, value in items:
        key = (*above, part)
        yield key, marked.start_mark.line + 1
        yield from _lines(value, key)


class _Checker:
    """Checks a tree of nodes before values are built from it."""

    def __init__(self, where: str, loader: Any) -> None:
        self._where, self._loader = where, loader
        self.twice: list[str] = []
        self._sizes: dict[int, int] = {}  # values below a node, by its id; 0 while it is being visited

    def visit(self, node: yaml.Node, place: tuple[str, ...]) -> int:
        """The number of values in the node, with every alias replaced.

        Raises:
            ParamsError: refuses the node or one below; names it.
        """
        known = self._sizes.get(id(node))
        if known is not None:
            if known == 0:
                raise self._error(node, place, "it contains itself")
            return known
        self._sizes[id(node)] = 0
        if node.tag not in _PLAIN:
            kind = node.tag.rpartition(":")[2]
            raise self._error(node, place, f"a value of the kind {kind} is not accepted; put it in quotes")
        size = 1
        if isinstance(node, yaml.ScalarNode):
            self._check_scalar(node, place)
        elif isinstance(node, yaml.SequenceNode):
            size += sum(self.visit(item, (*place, str(number))) for number, item in enumerate(node.value))
        else:
            size += self._mapping(node, place)
        if size > MOST_VALUES:
            raise self._error(node, place, f"more than {MOST_VALUES:,} values, with aliases replaced")
        self._sizes[id(node)] = size
        return size

    def _mapping(self, node: yaml.Node, place: tuple[str, ...]) -> int:
        size = 0
        seen: set[str] = set()
        for key, value in node.value:
            merges = key.tag == f"{_TAG}merge"
            if not isinstance(key, yaml.ScalarNode) or not (merges or key.tag == f"{_TAG}str"):
                raise self._error(key, place, "a key must be a text; put it in quotes")
            name = (*place, key.value)
            if key.value in seen and not merges:
                self.twice.append(str(self._error(key, name, "the key is given twice; remove one of them")))
            seen.add(key.value)
            self._check_scalar(key, name)
            size += 1 + self.visit(value, name)
        return size

    def _check_scalar(self, node: yaml.ScalarNode, place: tuple[str, ...]) -> None:
        if node.tag == f"{_TAG}merge":
            return
        try:
            value = self._loader.construct_object(node)
        except (ValueError, LookupError):  # from a tag such as `!!bool` before something else
            raise self._error(node, place, f"{shown(node.value)} cannot be read") from None
        if isinstance(value, str) and (letter := _UNUSABLE.search(value)):
            raise self._error(node, place, f"the text has the character {ord(letter[0]):#06x}, which no page can show")
        if isinstance(value, float) and not math.isfinite(value):
            raise self._error(node, place, f"{shown(node.value)} is not a finite number")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise self._error(node, place, f"{shown(node.value)} does not fit into 64 bits")

    def _error(self, node: yaml.Node, place: tuple[str, ...], what: str) -> ParamsError:
        line = node.start_mark.line + 1
        key = ".".join(shown(part)[1:-1] for part in place)
        return ParamsError(f"{self._where}, line {line}{f', {key}' if key else ''}: {what}")
