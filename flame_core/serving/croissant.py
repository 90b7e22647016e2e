"""Croissant 1.0 metadata (mlcommons.org/croissant) of the shards: files with digests, and the columns of the index."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from flame_core.data.shards import INDEX, INDEX_SCHEMA
from flame_core.serving.dataset_facts import DatasetFacts

_SAID = {
    "key": "Identifies the sample; the members of its tar are `<key>.jpg` and `<key>.json`.",
    "split": "train or val.",
    "shard": "The tar that holds the sample.",
    "row": "Position of the sample in its tar.",
    "offset": "Place of the picture's first byte in the tar.",
    "size": "Bytes of the picture, a JPEG.",
    "width": "Pixels.",
    "height": "Pixels.",
    "sha256": "Digest of the picture as its source gave it.",
    "captions": "Number of captions, in all languages; `<key>.json` has them.",
}
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(name: str, facts: DatasetFacts, licence: str | None) -> dict[str, Any]:
    """The JSON-LD; paths are relative to the folder of the shards. Without a licence there is no such key."""
    total = sum(facts.samples.values())
    licence = licence or facts.licence
    sets = [
        {
            "@type": "cr:FileSet",
            "@id": f"{split}-shards",
            "name": f"{split}-shards",
            "description": f"{len(facts.shards[split]):,} tars of {samples:,} samples: `<key>.jpg` and `<key>.json`.",
            "encodingFormat": "application/x-tar",
            "includes": f"{split}/*.tar",
        }
        for split, samples in facts.samples.items()
    ]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": f"{total:,} pictures with captions from {', '.join(facts.sources)}, as webdataset shards "
        "with an index.",
        **({"license": licence} if licence else {}),
        "inLanguage": sorted(facts.languages),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": INDEX,
                "name": INDEX,
                "description": "One row per sample.",
                "contentUrl": INDEX,
                "encodingFormat": "application/x-parquet",
                "sha256": facts.index_sha256,
            },
            *sets,
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "samples",
                "name": "samples",
                "key": {"@id": "samples/key"},
                "field": [_field(column) for column in INDEX_SCHEMA],
            }
        ],
    }


def _field(column: pa.Field) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"samples/{column.name}",
        "name": column.name,
        "description": _SAID[column.name],
        "dataType": "sc:Text" if pa.types.is_string(column.type) else "sc:Integer",
        "source": {"fileObject": {"@id": INDEX}, "extract": {"column": column.name}},
    }
