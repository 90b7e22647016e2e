"""The store's manifests say what its vectors depend on; a store made under other conditions is refused.

`data/embeddings/manifest.json` covers all vectors, `data/embeddings/train/manifest.json` the facets that train,
`data/embeddings/train/sentence/manifest.json` the sentences that train.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flame_core.absent_outs import bringing
from flame_core.digest import file_sha256, value_digest
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import Params, Reading
from flame_core.text.jobs import facet_names, sentence_names
from flame_core.text.llm_adapter import ADAPTER, expected_adapter
from flame_core.text.sentence import SENTENCE, sentence_content

MANIFEST = "manifest.json"


def read_manifest(embeddings: Path) -> dict[str, Any]:
    """The store's manifest.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = embeddings / MANIFEST
    if not path.is_file():
        raise InputError(f"{path} is missing: {bringing(embeddings)}")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); run `flame embed` again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged (no conditions by name); run `flame embed` again")
    return content


def require_manifest(manifest: dict[str, Any], expected: dict[str, Any], embeddings: Path) -> None:
    """Refuse a store that was made under other conditions.

    Raises:
        InputError: names every condition that differs, with both values.
    """
    wrong = [
        f"  {name}: the store has {found!r}, this run wants {value!r}"
        for name, value in expected.items()
        if (found := _at(manifest, name)) != value
    ]
    if wrong:
        raise InputError(f"{embeddings} does not fit this run; run `flame embed` again:\n" + "\n".join(wrong))


def _at(manifest: dict[str, Any], name: str) -> Any:
    value: Any = manifest
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def template_content(params: Params) -> dict[str, Any]:
    """The templates as the manifest holds them."""
    return {kind: template.model_dump() for kind, template in params.text.template.items()}


def captions_digest(captions: Path, folder: str = "") -> str:
    """Digest of the names and contents of all caption files, or of those in a folder."""
    paths = sorted((captions / folder).rglob("*.parquet"))
    return value_digest({path.relative_to(captions).as_posix(): file_sha256(path) for path in paths})


def training_folder(train_embeddings: Path, reading: Reading) -> Path:
    """The folder of a reading's training vectors; it has its own manifest, so each reading changes independently."""
    return train_embeddings / SENTENCE if reading == "sentence" else train_embeddings


def require_fit(manifest: dict[str, Any], params: Params, layout: Layout) -> None:
    """Refuse a store that was made with another LLM, layer, template, numeric type or centring, or from other captions.

    Raises:
        InputError: names every condition that differs, with both values.
    """
    expected = {
        **_facets_made_for(params),
        **_adapted(params, layout, manifest),
        "captions": captions_digest(layout.captions),
    }
    if params.text.sentence is not None or manifest.get(SENTENCE) is not None:
        expected[SENTENCE] = None if params.text.sentence is None else sentence_content(params.text)
    require_manifest(manifest, expected, layout.embeddings)


def require_training_fit(manifest: dict[str, Any], params: Params, layout: Layout, reading: Reading = "facets") -> None:
    """As `require_fit`, for a reading's training vectors; captions of the validation split do not matter.

    Raises:
        InputError: names every condition that differs, with both values.
    """
    captions = captions_digest(layout.captions, layout.train_embeddings.name)
    made_for = _sentences_made_for(params) if reading == "sentence" else _facets_made_for(params)
    expected = {**made_for, **_adapted(params, layout, manifest), "captions": captions}
    require_manifest(manifest, expected, training_folder(layout.train_embeddings, reading))


def _adapted(params: Params, layout: Layout, manifest: dict[str, Any]) -> dict[str, Any]:
    return {f"llm.{ADAPTER}": expected_adapter(params, layout, manifest.get("llm") or {})}


def _made_for(params: Params) -> dict[str, Any]:
    return {
        "llm.name": params.llm.name,
        "llm.source": params.llm.source,
        "llm.random_seed": params.llm.random_seed,
        "center": params.text.center,
        "store_dtype": params.text.store_dtype,
    }


def _facets_made_for(params: Params) -> dict[str, Any]:
    return {
        **_made_for(params),
        "layer": params.text.layer,
        "template": template_content(params),
        "normalise": params.text.normalise,
        "facets": facet_names(params.text),
    }


def _sentences_made_for(params: Params) -> dict[str, Any]:
    return {**_made_for(params), SENTENCE: sentence_content(params.text), "facets": sentence_names(params.text)}
