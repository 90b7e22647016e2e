"""Reads rows of a table that is one JSON document (`.json`), in the forms in which data sets are published.

    [{"image": ..., "caption": ...}, ...]                           records, as ALBEF, BLIP and pandas write them
    {"images": [{"id": 1, "file_name": ...}, ...],
     "annotations": [{"image_id": 1, "caption": ...}, ...]}         COCO: a row per annotation, with its image's fields
    {"images": [{"filepath": ..., "filename": ..., "split": ..., "sentences": [{"raw": ...}, ...]}, ...]}
                                                                    Karpathy: `filename` is then below `filepath`
    {"data": [{...}, ...], ...}                                     records in the only list that has any
    {"1.jpg": "a text", "2.jpg": ["a text", "another"], ...}        captions or records by name
    {"image": [...], "caption": [...]}                              columns: lists, or pandas' {number: value}

The document is read as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BufferedIOBase
from typing import Any, BinaryIO

from flame_core.data.sources.record import read_json, too_deep
from flame_core.data.sources.table import LONGEST, Row, Table, text_size
from flame_core.data.text_files import TextError
from flame_core.files.regular_files import open_regular
from flame_core.quantities import size_text

LARGEST = 1 << 30  # bytes of a document
_FORMS = (
    "it has none of the forms that are read: a list of records; COCO's `images` and `annotations`; Karpathy's `images` "
    "with `sentences`; captions by name"
)


def json_rows(table: Table) -> Iterator[tuple[int, Row]]:
    """(number from 1, row) of each record."""
    try:
        with open_regular(table.path) as file:
            records, wrong = records_of(_document(file, table.encoding), table.needed)
    except (OSError, TextError) as error:
        table.refuse(f"cannot be read: {error}")
    for which, why in wrong:
        table.damaged(which, why)
    table.require({name for record in records if isinstance(record, Mapping) for name in record})
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


def document_records(file: BinaryIO | BufferedIOBase, needed: Sequence[str]) -> list[dict[str, Any]]:
    """The records of a document in UTF-8, UTF-16 or UTF-32 that are objects.

    Raises:
        TextError: it is no JSON, or holds no form that is read.
    """
    records, _ = records_of(_document(file, "utf-8"), needed)
    return [dict(record) for record in records if isinstance(record, Mapping)]


def _document(file: BinaryIO | BufferedIOBase, encoding: str) -> Any:
    content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise TextError(f"it has more than {size_text(LARGEST)}; a .jsonl is read line by line (jq -c '.[]' makes one)")
    return read_json(content, encoding)


def records_of(document: Any, needed: Sequence[str]) -> tuple[Sequence[Any], list[tuple[str, str]]]:
    """The records of a document, and (which, why) of those that it cannot give.

    Of captions by name, the names are in the first of the `needed` columns, and the captions in the second.

    Raises:
        TextError: it has none of the forms.
    """
    match document:
        case list() if any(isinstance(each, Mapping) for each in document):
            return document, []
        case {"images": list(images), "annotations": list(annotations)} if _objects(images) and _objects(annotations):
            return _joined(images, annotations)
        case dict() if document:
            lists = [value for value in document.values() if _objects(value)]
            if len(lists) == 1:
                return [_placed(record) for record in lists[0]], []
            if not lists and (records := _by_column(document, needed) or _by_name(document, needed)):
                return records, []
    raise TextError(_FORMS)


def _objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)


def _joined(
    images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[tuple[str, str]]]:
    """A record per annotation, with the fields of its image; and the images without one."""
    known: dict[str, Mapping[str, Any]] = {}
    wrong: list[tuple[str, str]] = []
    for number, image in enumerate(images, start=1):
        if known.setdefault(str(image.get("id")), image) is not image:
            wrong.append((f"image {number}", f"has the id {image.get('id')!r} of another one"))
    records: list[Mapping[str, Any]] = []
    told: set[str] = set()
    for number, annotation in enumerate(annotations, start=1):
        name = str(annotation.get("image_id"))
        if name in known:
            told.add(name)
            records.append({**known[name], **annotation})
        else:
            wrong.append((f"annotation {number}", f"is about the image {name}, which `images` does not list"))
    return [*records, *(image for name, image in known.items() if name not in told)], wrong


def _placed(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record of Karpathy's with the whole name of its file; any other one as it is."""
    match record:
        case {"filepath": str(folder), "filename": str(name)}:
            return {**record, "filename": f"{folder}/{name}"}
    return record


def _by_column(document: Mapping[str, Any], needed: Sequence[str]) -> list[Mapping[str, Any]] | None:
    """The records of a document of columns; None if it is none."""
    if not set(needed) <= document.keys():
        return None
    columns = list(document.values())
    if all(isinstance(column, list) for column in columns) and len(set(map(len, columns))) == 1:
        return [dict(zip(document, cells, strict=True)) for cells in zip(*columns, strict=True)]
    if all(isinstance(column, Mapping) for column in columns):
        numbers = dict.fromkeys(number for column in columns for number in column)
        return [{name: column.get(number) for name, column in document.items()} for number in numbers]
    return [document]


def _by_name(document: Mapping[str, Any], needed: Sequence[str]) -> list[Mapping[str, Any]] | None:
    """The records of captions by name; None if these are no captions."""
    if not all(isinstance(value, str | list | Mapping) for value in document.values()):
        return None
    name, text = (*needed, "caption")[:2]
    return [
        {name: key, **value} if isinstance(value, Mapping) and text in value else {name: key, text: value}
        for key, value in document.items()
    ]
