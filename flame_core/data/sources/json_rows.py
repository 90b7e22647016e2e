"""Reads rows of a table that is one JSON document (`.json`), in the forms in which data sets are published.

    [{"image": ..., "caption": ...}, ...]                           records, as ALBEF, BLIP and pandas write them
    {"images": [{"id": 1, "file_name": ...}, ...],
     "annotations": [{"image_id": 1, "caption": ...}, ...]}         COCO: a row per annotation, with its image's fields
    {"images": [{"filepath": ..., "filename": ..., "split": ..., "sentences": [{"raw": ...}, ...]}, ...]}
                                                                    Karpathy: `filename` is then below `filepath`
    {"data": [{...}, ...], ...}                                     records in the only list that has any
    {"train": [{...}], "val": [{...}], ...}                         records by split
    {"1.jpg": "a text", "2.jpg": ["a text", "another"], ...}        captions or records by name
    {"image": [...], "caption": [...]}                              columns: lists, or pandas' {number: value}

The document is read as a whole. COCO's number of a licence becomes the name that the document has for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from itertools import chain, islice
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from flame_core.data.picture_kinds import is_picture
from flame_core.data.sources.record import is_record, read_json, too_deep
from flame_core.data.sources.splits import part_of
from flame_core.data.sources.table import LONGEST, Row, Table, text_size
from flame_core.data.text_files import TextError
from flame_core.files.regular_files import open_regular
from flame_core.quantities import size_text

LARGEST = 1 << 30  # bytes of a document
_FORMS = (
    "it has none of the forms that are read: a list of records, also under a name or by split; COCO's `images` and "
    "`annotations`; Karpathy's `images` with `sentences`; captions or records by name; columns"
)


@dataclass(frozen=True)
class Records:
    """The records of a document, and (which, why) of those that it cannot give.

    Each is made when it is asked for, since a merged copy of all of COCO's would need gigabytes.
    """

    _parts: Sequence[tuple[Mapping[str, Any], Any]]  # (fields that a record does not say itself, record)
    wrong: Sequence[tuple[str, str]] = ()
    by_name: bool = False  # whether each stands below the name of its picture

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Any]:
        return ({**own, **record} if own and isinstance(record, Mapping) else record for own, record in self._parts)

    @property
    def fields(self) -> set[str]:
        """The names of all fields."""
        parts = chain.from_iterable(self._parts)
        return {name for part in parts if isinstance(part, Mapping) for name in part}


def json_rows(table: Table) -> Iterator[tuple[int, Row]]:
    """(number from 1, row) of each record."""
    try:
        with open_regular(table.path) as file:
            records = records_of(_document(file, table.encoding), table.needed)
    except (OSError, TextError) as error:
        table.refuse(f"cannot be read: {error}")
    for which, why in records.wrong:
        table.damaged(which, why)
    table.require(records.fields)
    wanted = set(table.wanted)
    for number, record in enumerate(records, start=1):
        if not isinstance(record, Mapping):
            table.damaged(f"record {number}", "is no object")
            continue
        row = {name: value for name, value in record.items() if name in wanted}
        if too_deep(row):
            table.damaged(f"record {number}", "is nested too deeply")
        elif (size := text_size(row)) > LONGEST:
            table.damaged(f"record {number}", f"has {size:,} characters")
        else:
            yield number, row


def document_records(file: BinaryIO | BufferedIOBase, needed: Sequence[str]) -> Records:
    """The records of a document in UTF-8, UTF-16 or UTF-32.

    Raises:
        TextError: it is no JSON, or holds no form that is read.
    """
    return records_of(_document(file, "utf-8"), needed)


def first_objects(records: Records, count: int) -> list[dict[str, Any]]:
    """The first records that are objects."""
    return list(islice((dict(record) for record in records if isinstance(record, Mapping)), count))


def _document(file: BinaryIO | BufferedIOBase, encoding: str) -> Any:
    content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise TextError(f"it has more than {size_text(LARGEST)}; a .jsonl is read line by line (jq -c '.[]' makes one)")
    return read_json(content, encoding)


def records_of(document: Any, needed: Sequence[str]) -> Records:
    """The records of a document.

    Of captions by name, the names are in the first of the `needed` columns, and the captions in the second.

    Raises:
        TextError: it has none of the forms.
    """
    match document:
        case list() if _any_object(document):
            return _plain(document)
        case {"images": list(images), "annotations": list(annotations)} if _objects(images) and _objects(annotations):
            return _joined(images, annotations, document.get("licenses"))
        case dict() if document:
            if any(map(is_picture, document)) and (named := _by_name(document, needed)):
                return named
            lists = {name: value for name, value in document.items() if _any_object(value)}
            if len(lists) == 1:
                return _plain([_placed(record) for records in lists.values() for record in records])
            if lists and all(map(part_of, lists)):
                return Records([({"split": name}, record) for name, records in lists.items() for record in records])
            if not lists and (found := _by_column(document, needed) or _by_name(document, needed)):
                return found
    raise TextError(_FORMS)


def _plain(records: Sequence[Any]) -> Records:
    return Records([({}, record) for record in records])


def _any_object(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(each, Mapping) for each in value)


def _objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)


def _joined(images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]], licences: Any) -> Records:
    """A record per annotation, with the fields of its image; and the images without one."""
    if not any("id" in image for image in images):  # annotations that name their files themselves
        return _plain(annotations)
    named = _licences(licences)
    known: dict[str, Mapping[str, Any]] = {}
    wrong: list[tuple[str, str]] = []
    for number, image in enumerate(images, start=1):
        if image.get("id") is None:
            wrong.append((f"image {number}", "has no id"))
            continue
        if isinstance(image.get("license"), int):
            image = {**image, "license": named.get(str(image["license"]))}
        if known.setdefault(str(image["id"]), image) is not image:
            wrong.append((f"image {number}", f"has the id {image['id']!r} of another one"))
    parts: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
    told: set[str] = set()
    for number, annotation in enumerate(annotations, start=1):
        name = str(annotation.get("image_id"))
        if name in known:
            told.add(name)
            parts.append((known[name], annotation))
        else:
            wrong.append((f"annotation {number}", f"is about the image {name}, which `images` does not list"))
    return Records([*parts, *(({}, image) for name, image in known.items() if name not in told)], wrong)


def _licences(listed: Any) -> dict[str, str]:
    """{number: name or address} of licences as COCO lists them."""
    found: dict[str, str] = {}
    for each in listed if _objects(listed) else ():
        match each:
            case {"id": number, "name": str(said)} | {"id": number, "url": str(said)} if said.strip():
                found[str(number)] = said
    return found


def _placed(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record of Karpathy's with the whole name of its file; any other one as it is."""
    match record:
        case {"filepath": str(folder), "filename": str(name)} if folder.strip("/ ") and not folder.endswith(name):
            return {**record, "filename": str(PurePosixPath(folder) / name)}
    return record


def _by_column(document: Mapping[str, Any], needed: Sequence[str]) -> Records | None:
    """The records of a document of columns; None if it is none."""
    if not set(needed) <= document.keys():
        return None
    first = document[needed[0]]
    if not isinstance(first, list | Mapping):
        return _plain([document])
    columns = {name: cells for name, cells in document.items() if isinstance(cells, list | Mapping)}
    kinds = {isinstance(columns.get(name), list) for name in needed}
    sizes = {name: len(columns.get(name, ())) for name in needed}
    if not set(needed) <= columns.keys() or len(kinds) > 1 or (isinstance(first, list) and len({*sizes.values()}) > 1):
        said = ", ".join(f"{name!r} {size:,}" for name, size in sizes.items())
        raise TextError(f"its columns do not have as many values: {said}")
    if isinstance(first, list):
        whole = {name: cells for name, cells in columns.items() if len(cells) == len(first)}
        return _plain([dict(zip(whole, cells, strict=True)) for cells in zip(*whole.values(), strict=True)])
    by_number = {name: cells for name, cells in columns.items() if isinstance(cells, Mapping)}
    numbers = dict.fromkeys(number for cells in by_number.values() for number in cells)
    return _plain([{name: cells.get(number) for name, cells in by_number.items()} for number in numbers])


def _by_name(document: Mapping[str, Any], needed: Sequence[str]) -> Records | None:
    """The records of captions by name; None if these are no captions. Beside names of pictures, others do not count."""
    document = {name: value for name, value in document.items() if is_picture(name)} or document
    if not all(isinstance(value, str | list | Mapping) for value in document.values()):
        return None
    name, text = (*needed, "caption")[:2]
    parts = [
        ({name: key}, value) if isinstance(value, Mapping) and is_record(value, text) else ({name: key}, {text: value})
        for key, value in document.items()
    ]
    return Records(parts, by_name=True)
