"""Looks at a user's data before a project is made for them: which source reads them, and what it finds there.

What is counted comes from the source itself (`flame download` will list the same pairs). Up to 100 pictures, evenly
spaced, are decoded to tell how many cannot be read.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from flame_core.data.buckets.bucket import SCHEMES
from flame_core.data.captions_text import clean_captions, word_count
from flame_core.data.picture_bounds import PictureError
from flame_core.data.picture_decoding import read_picture
from flame_core.data.shards import SPLITS
from flame_core.data.sources import Problem, RawPair, open_source
from flame_core.data.sources.accounting import Unused, UnusedGroup
from flame_core.data.sources.listing import left_out, read_pairs, read_source
from flame_core.data.sources.table import NAMED_TABLES
from flame_core.data.sources.tar_content import read_samples
from flame_core.errors import InputError
from flame_core.layout import Layout, outside_projects
from flame_core.names import LONGEST, expanded, is_language_code, is_text, shown
from flame_core.params import IngestParams, Source, WebdatasetSource
from flame_core.project.columns import caption_field, is_number, unread_fields
from flame_core.project.folder_survey import KEPT, NAMED, Given, folder_sources, quoted
from flame_core.work import WorkCache

FEWEST = 10  # pictures with captions, for a training and a held-out split at all
_DECODED = 100
_READ_WHOLE = 4 << 30  # bytes of shards; of more, only the first shard is read
_ROWS = 4096
_WANTED = (
    'write bird.txt or bird.json ({"caption": "a bird"}) beside bird.jpg, or a table captions.csv with the columns '
    "image and caption; --table names one that lies elsewhere"
)


@dataclass
class Survey:
    """What the data hold.

    Attributes:
        sources: read the data; their names are made from those of the folders.
        language: of most pictures.
        usable: pictures that have a caption, an estimate if some cannot be read or only a part was looked at.
        kept: their share of all that is listed.
        captions: texts in `language`.
        words: of a caption in `language`, on average.
        languages: pictures with captions in each language.
        fixed: usable pictures by the split that the data say.
        facts: for people.
    """

    sources: dict[str, Source]
    language: str = "en"
    usable: int = 0
    kept: float = 1.0
    captions: int = 0
    words: float = 0.0
    languages: Counter[str] = field(default_factory=Counter)
    fixed: Counter[str] = field(default_factory=Counter)
    facts: dict[str, str] = field(default_factory=dict)


def survey(given: Given, layout: Layout) -> Survey:
    """Look at the data; the listing stays in the project's work cache, where `flame download` finds it.

    Raises:
        InputError: there are no pictures, or no captions for them; says what to do.
    """
    scheme, _, rest = str(given.path).partition(":/")  # a path has lost the second slash of an address
    if scheme in SCHEMES:
        raise InputError(
            f"{scheme}://{rest.lstrip('/')} is an address, and `flame init` looks at data of this machine: give it a "
            "folder with one of the shards, then write the address into params.yaml as `path` of the source"
        )
    folder = expanded(given.path).resolve()
    if folder.is_file() and folder.suffix.lower() in NAMED_TABLES and not given.shards:
        given, folder = replace(given, table=given.table or folder), folder.parent
    if not folder.is_dir():
        what = "is a file; name the folder that holds it" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}")
    if not is_text(str(folder)):
        raise InputError(f"{shown(str(folder))}: params.yaml is UTF-8, and this path is not; rename the folder")
    found, scale = Survey({}), 1.0
    if not given.shards:
        parts, found.facts = folder_sources(folder, given)
        found.sources |= {_name("-".join((folder.name, *part))): source for part, source in parts.items()}
        listed = found.sources
    else:
        source, found.facts = _shards(folder, given)
        found.sources[_name(folder.name)] = source
        tars = sorted(outside_projects(folder, source.shards))
        size = sum(path.stat().st_size for path in tars)
        if size > _READ_WHOLE:
            source = source.model_copy(update={"shards": tars[0].relative_to(folder).as_posix()})
            scale = size / tars[0].stat().st_size
            found.facts["looked at"] = f"only the first of {len(tars):,} shards; all numbers below are estimates"
        listed = {_name(folder.name): source}
    _count(found, _listed(listed, layout), scale)
    return found


@dataclass(frozen=True)
class _Listed:
    """What sources list, and their own records about it."""

    pairs: Iterator[RawPair]
    count: int
    problems: list[Problem]
    unused: list[UnusedGroup]


def _listed(sources: Mapping[str, Source], layout: Layout) -> _Listed:
    lists = []
    problems: list[Problem] = []
    unused: list[UnusedGroup] = []
    for name, source in sources.items():
        opened = open_source(source, layout, name)
        raw = opened.download(WorkCache(layout.work, "download")).folder
        about = read_source(raw)
        lists.append((raw, opened.pictures(raw), about["pairs"]))
        own_problems, own_unused = left_out(about)
        problems += own_problems
        unused += own_unused
    pairs = chain.from_iterable(_pairs(*each) for each in lists)
    return _Listed(pairs, sum(count for _, _, count in lists), problems, unused)


def _pairs(raw: Path, pictures: Path, count: int) -> Iterator[RawPair]:
    for start in range(0, count, _ROWS):
        yield from read_pairs(raw, pictures, start, min(start + _ROWS, count))


def _count(found: Survey, listed: _Listed, scale: float) -> None:
    """Fill in what the listed pairs hold.

    Raises:
        InputError: too few pictures have captions.
    """
    step = max(1, listed.count // _DECODED)
    silent: list[str] = []
    without: list[str] = []
    unread: list[str] = []
    elsewhere: Counter[str] = Counter()  # by their split
    wordless: dict[str, str] = {}  # {key: its first caption}
    whole = decoded = 0
    texts: Counter[str] = Counter()
    words: defaultdict[str, float] = defaultdict(float)
    for number, pair in enumerate(listed.pairs):
        coded = {code: own for code, own in pair.captions.items() if is_language_code(code)}
        cleaned, _ = clean_captions(coded, IngestParams().max_caption_chars)
        spoken = {code: cleaned[code] for code in coded if code in cleaned}  # in the order of the data
        if pair.split not in (None, *SPLITS):
            elsewhere[pair.split] += 1
            continue
        if pair.image is None:
            without.append(pair.key)
            continue
        if not spoken:
            silent.append(pair.key)
            continue
        whole += 1
        if all(is_number(text) for own in spoken.values() for text in own):
            wordless[pair.key] = next(iter(spoken.values()))[0]
        if pair.split is not None:
            found.fixed[pair.split] += 1
        for code, own in spoken.items():
            found.languages[code] += 1
            texts[code] += len(own)
            words[code] += sum(map(word_count, own))
        if number % step == 0:
            decoded += 1
            if why := _why_unread(pair):
                unread.append(f"{pair.key} ({why})")
    found.language = max(found.languages, key=lambda code: found.languages[code], default=found.language)
    found.usable = round(whole * scale * (1 - len(unread) / max(decoded, 1)))
    found.kept = found.usable / max(listed.count * scale, 1)
    found.captions = round(texts[found.language] * scale)
    found.words = words[found.language] / max(texts[found.language], 1)
    about_ = "about " if scale != 1 else ""
    found.facts["pictures with captions"] = f"{about_}{round(whole * scale):,}"
    found.facts["languages"] = ", ".join(f"{code} {count:,}" for code, count in found.languages.most_common()) or "none"
    if elsewhere:
        named = ", ".join(f"{shown(split)} {count:,}" for split, count in elsewhere.most_common(NAMED))
        found.facts["pairs of other splits, left out"] = named + (", ..." if len(elsewhere) > NAMED else "")
    if silent:
        found.facts["pictures without a caption"] = _some(silent)
    if without:
        found.facts["captions without a picture"] = _some(without)
    if unread:
        of = "" if decoded == whole else f" of the {decoded} looked at"
        found.facts["pictures that cannot be read"] = f"{_some(unread)}{of}"
    if listed.problems:
        first = listed.problems[0]
        count = sum(each.count for each in listed.problems)
        found.facts["cannot be read"] = f"{count:,}: {first.file} ({first.detail}){', ...' if count > 1 else ''}"
    if listed.unused:
        found.facts["not used"] = "; ".join(group.detail for group in listed.unused)
    if wordless:
        found.facts["captions without a letter"] = _some(list(wordless))
    if whole and len(wordless) == whole:
        name, text = next(iter(wordless.items()))
        raise InputError(f"no caption has a letter, such as {text[:80]!r} of {name}: these are labels; {_WANTED}")
    if found.usable < FEWEST:
        _refuse(found, silent, without, elsewhere)


def _why_unread(pair: RawPair) -> str | None:
    assert pair.image is not None
    try:
        read_picture(pair.image.read(), IngestParams())
    except (PictureError, InputError) as error:
        return getattr(error, "reason", "changed meanwhile")
    return None


def _refuse(found: Survey, silent: Sequence[str], without: Sequence[str], elsewhere: Counter[str]) -> None:
    listed = "".join(f"\n  {name}: {value}" for name, value in found.facts.items())
    if silent and found.usable == 0:
        raise InputError(f"{len(silent):,} pictures are there, and none has a caption: {_WANTED}{listed}")
    if without and found.usable == 0:
        raise InputError(f"no caption has a picture that is there, such as {without[0]!r}: correct the names{listed}")
    if elsewhere and found.usable == 0:
        raise InputError(
            f"the field `split` says of {elsewhere.total():,} pairs that they are neither for training nor for "
            f"validation: write train or val there, or rename it{listed}"
        )
    raise InputError(f"{found.usable} pictures with captions are too few; a training needs {FEWEST} at least{listed}")


def _some(names: Sequence[str]) -> str:
    return f"{len(names):,}: {', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''}"


def _name(folder: str) -> str:
    """A name of a source from that of a folder."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", folder).strip("-")[:LONGEST] or "pictures"


def _shards(folder: Path, given: Given) -> tuple[WebdatasetSource, dict[str, str]]:
    """The source of a folder of shards, and what was chosen."""
    pattern = next((each for each in ("*.tar", "**/*.tar") if next(folder.glob(each), None)), None)
    if pattern is None:
        raise InputError(f"{folder} holds no .tar; give a folder of pictures with --images instead of --shards")
    source = WebdatasetSource(kind="webdataset", path=str(folder), shards=pattern, language=given.language or "en")
    first = min(folder.glob(pattern)).relative_to(folder).as_posix()
    texts, records = 0, []
    for number, sample in enumerate(read_samples(folder, first, [], Unused())):
        texts += len(sample.texts)
        own = [[(name, value) for name, value in each.items() if value not in sample.texts] for each in sample.records]
        records += map(dict, own)
        if number >= _DECODED:
            break
    told = {"captions": "in the .txt or .caption of each sample"}
    name = source.caption_field
    if not texts:
        name = given.caption_column or caption_field(records)
        if name is None:
            fields = ", ".join(sorted({name for record in records for name in record})) or "none"
            raise InputError(
                f"{folder / first} holds no .txt or .caption, and which field of its .json has captions is not clear "
                f"({fields}): name it with --caption-column"
            )
        source = source.model_copy(update={"caption_field": name})
        told = {"captions": f"field {name!r} of the .json of each sample"}
    if unread := unread_fields(records, name):
        told["fields not read"] = f"{quoted(unread)}; {KEPT}"
    return source, told
