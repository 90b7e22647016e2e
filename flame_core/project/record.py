"""What a project got from the installed package: the shipped text of each file, kept as the base of later merges.

`.flame-project.yaml` holds them; from it `flame upgrade` tells what the package changed and what a person did. It
belongs into version control. A project without it (such as this repository, where the files are made) has no base.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from flame_core.errors import ParamsError
from flame_core.graph.versions import VERSIONS
from flame_core.params import read_yaml
from flame_core.params.recipe_files import FOLDER
from flame_core.project.env_file import env_text
from flame_core.shipped import shipped
from flame_core.work import VERSIONS_FILE

RECORD = ".flame-project.yaml"
PIPELINE = "dvc.yaml"
ENV = ".env.example"
_SAYS = """\
# Written by `flame init` and `flame upgrade`: the files that came with flame-mlops, as they came. From it the next
# `flame upgrade` tells your edits from its own. Keep it in version control, and do not edit it.
"""


def shipped_files() -> dict[str, str]:
    """{name: text} of the files that `flame init` writes and `flame upgrade` keeps up to date."""
    recipes = shipped("recipes")
    return {
        PIPELINE: shipped(PIPELINE).read_text("utf-8"),
        VERSIONS: VERSIONS_FILE.read_text("utf-8"),
        ENV: env_text(),
        **{
            f"recipes/{path.relative_to(recipes).as_posix()}": path.read_text("utf-8")
            for path in sorted(recipes.glob("**/*.yaml"))
            if path.parent.name == FOLDER or not (recipes / FOLDER / path.name).is_file()  # not what a link made
        },
    }


class _Block(str):
    """A text that YAML shows line by line."""


def _represent(dumper: yaml.SafeDumper, text: _Block) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Block, _represent)


def record_text(files: Mapping[str, str]) -> str:
    """The text of `.flame-project.yaml`."""
    content = {"files": {name: _Block(text) for name, text in files.items()}}
    return _SAYS + yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 16)


def read_record(root: Path) -> dict[str, str]:
    """{name: text as it was shipped}; {} without a record.

    Raises:
        ParamsError: the record is damaged.
    """
    path = root / RECORD
    if not path.is_file():
        return {}
    files: Any = read_yaml(path).get("files")
    if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
        raise ParamsError(f"{path} is damaged: restore it, or delete it (edited files are then not merged but kept)")
    return files
