"""Rules for names that people and data give, because names become paths, arguments, headings and metrics.

A name is checked once, where it enters (the models of params, the captions of a source, the tags of a foreign record);
later code relies on that. `work.gather` still refuses any path that would leave its out.

| kind | rule | used for |
|---|---|---|
| `Name` | a letter, digit or `_`, then also `-` | recipes, sources |
| `DottedName` | the same, with dots between | LLMs, baselines, benchmarks |
| `LanguageCode` | BCP 47 or gettext: `en`, `zh_CN`, `sr@latin` | captions, class prompts, reports |
| `HubId` | `name` or `owner/name` | models of the Hugging Face hub |

Names of files and archive members are not checked but converted to keys of samples: `data.sources.keys.safe_key`.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

LONGEST = 100  # bytes; leaves room for what stages add, within the 255 of a file name
RESERVED = "mean"  # used in place of a language in the results of a benchmark
_NAME = re.compile(r"\w[\w-]*")
_DOTTED = re.compile(r"\w[\w-]*(\.[\w-]+)*")
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}([_-][A-Za-z0-9]{1,8}){0,4}(@[A-Za-z0-9]{1,12})?")
_HUB = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


def require_name(name: str) -> str:
    """`name`, if it is valid.

    Raises:
        ValueError: says what a name may be.
    """
    return _required(name, _NAME, "letters, digits, _ and -, and does not begin with -")


def require_dotted_name(name: str) -> str:
    """As `require_name`, but single dots inside are allowed."""
    return _required(name, _DOTTED, "letters, digits, _, - and single dots inside, and does not begin with -")


def _required(name: str, pattern: re.Pattern[str], rule: str) -> str:
    if not pattern.fullmatch(name) or unicodedata.normalize("NFC", name) != name:
        raise ValueError(f"a name is made of {rule}")
    if len(name.encode()) > LONGEST:
        raise ValueError(f"a name has at most {LONGEST} bytes")
    return name


def is_text(name: str) -> bool:
    """Whether a name from outside is text: bytes that are not UTF-8 become lone surrogates, which no file can hold."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def is_language_code(code: str) -> bool:
    """Whether `code` has the form of a language code and is not the reserved word."""
    return len(code) <= 35 and _LANGUAGE.fullmatch(code) is not None and code.lower() != RESERVED


def require_language_code(code: str) -> str:
    """`code`, if it has the form of a language code.

    Raises:
        ValueError: says what it may be.
    """
    if not is_language_code(code):
        raise ValueError("a language code looks like en, pt-BR, zh_CN or sr@latin")
    return code


def require_hub_id(model: str) -> str:
    """`model`, if it is a valid hub id; never the path of a folder.

    Raises:
        ValueError: says what it may be.
    """
    if not _HUB.fullmatch(model) or ".." in model or "--" in model:
        raise ValueError(f"{shown(model)} is not a hub id: write <owner>/<name>")
    return model


def require_revision(revision: str) -> str:
    """`revision`, if it can be a commit, a tag or a branch.

    Raises:
        ValueError: says what it may be.
    """
    if not _REVISION.fullmatch(revision) or ".." in revision or len(revision) > 200:
        raise ValueError(f"{shown(revision)} is not a revision: write a commit, a tag or a branch")
    return revision


def is_commit(text: str) -> bool:
    """Whether `text` is a git commit in hexadecimal; anything else might be an option to git."""
    return _COMMIT.fullmatch(text) is not None


def stays_inside(path: str) -> bool:
    """Whether a relative `/` path stays below its folder and has no empty, `.` or `..` parts."""
    return "\0" not in path and not {"", ".", ".."} & set(path.split("/"))


def folders_of(path: str) -> list[str]:
    """The folders that a relative path passes through: `a` and `a/b` of `a/b/c`."""
    return [str(parent) for parent in PurePosixPath(path).parents][:-1]


def shown(text: str) -> str:
    """A foreign text quoted for an error message: on one line, control characters escaped, short.

    The middle of a long one is left out, so a path keeps its file's name.
    """
    return repr(text if len(text) <= 80 else f"{text[:39]}…{text[-40:]}")


def printable(name: str) -> str:
    """A file's or member's name in valid UTF-8: file systems and tars allow bytes that are not text."""
    return name.encode("utf-8", "backslashreplace").decode()


Name = Annotated[str, AfterValidator(require_name)]
DottedName = Annotated[str, AfterValidator(require_dotted_name)]
LanguageCode = Annotated[str, AfterValidator(require_language_code)]


def expanded(path: str | Path) -> Path:
    """A path with `~` as the user's home; as it is if it begins with the name of no user (`~unknown`)."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` did you mean 'x'?` if a known name is like this one, to follow the sentence that refuses it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" did you mean {close[0]!r}?" if close else ""
