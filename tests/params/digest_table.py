"""The stored digests of recipes and defaults of params (`digests.json`): what `test_digests.py` compares with.

python -m tests.params.digest_table    # writes it anew: after a new recipe, field or loss, or a bumped version
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, get_args

from flame_core.digest import value_digest, write_json
from flame_core.params import Params, TrainParams, changed_values, read_yaml
from flame_core.params.objectives import OBJECTIVES
from flame_core.params.section import Section
from flame_core.work import stage_versions

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).parent / "digests.json"
STAGE_OF = {"sources": "download", "llm": "fetch_llm", "text": "embed"}  # other sections are called as their stages


def recipes() -> dict[str, dict[str, Any]]:
    """{name: content} of every recipe file, and of a recipe of each loss at its defaults."""
    found = {path.stem: read_yaml(path) for path in sorted((ROOT / "recipes").glob("**/*.yaml"))}
    for name in OBJECTIVES:
        model = {"facet_sigmoid": {"facet_blocks": "all"}, "lexical": {"head": "lexical"}}.get(name)
        found[f"defaults of {name}"] = {"objective": {"name": name}, **({"model": model} if model else {})}
    return found


def digests(model: type[TrainParams] = TrainParams) -> dict[str, str]:
    """{recipe: digest of what decides its weights}."""
    return {name: value_digest(model.model_validate(content).identity) for name, content in recipes().items()}


def defaults() -> dict[str, dict[str, Any]]:
    """{stage: {class.field: default}} of all sections that a stage reads."""
    found: dict[str, dict[str, Any]] = {}
    for name, info in Params.model_fields.items():
        stage = STAGE_OF.get(name, name)
        if stage in stage_versions():
            found[stage] = {}
            for section in sorted(_sections(info.annotation), key=lambda each: each.__name__):
                for field, about in section.model_fields.items():
                    if not about.is_required():
                        value = about.get_default(call_default_factory=True)
                        plain = [type(value).__name__, changed_values(value)] if isinstance(value, Section) else value
                        found[stage][f"{section.__name__}.{field}"] = json.loads(json.dumps(plain))
    return found


def _sections(annotation: Any) -> set[type[Section]]:
    """All classes of sections in a type, and in those."""
    if not (isinstance(annotation, type) and issubclass(annotation, Section)):
        return {section for each in get_args(annotation) for section in _sections(each)}
    inner = [_sections(info.annotation) for info in annotation.model_fields.values()]
    return {annotation}.union(*inner)


def moved_defaults(table: dict[str, Any]) -> dict[str, list[str]]:
    """{stage: fields whose default is no longer that of the table}; new and removed fields are none."""
    now = defaults()
    moved = {
        stage: [field for field, value in old["fields"].items() if field in now[stage] and now[stage][field] != value]
        for stage, old in table["defaults"].items()
    }
    return {stage: fields for stage, fields in moved.items() if fields}


def main() -> None:
    """Write the table, unless a default moved and its stage's version did not."""
    versions = stage_versions()
    if TABLE.is_file():
        table = json.loads(TABLE.read_text("utf-8"))
        for stage, fields in moved_defaults(table).items():
            if versions[stage] <= table["defaults"][stage]["version"]:
                sys.exit(f"the defaults of {', '.join(fields)} changed: bump {stage} in flame_core/versions.yaml first")
    stages = {stage: {"version": versions[stage], "fields": fields} for stage, fields in defaults().items()}
    write_json(TABLE, {"recipes": digests(), "defaults": stages})


if __name__ == "__main__":
    main()
