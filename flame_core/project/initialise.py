"""`flame init`: looks at the data, writes the project, and says what was found, what was chosen, and how to go on."""

from __future__ import annotations

import shlex

from flame_core.files.whole_files import clear_output_errors
from flame_core.layout import Layout
from flame_core.names import expanded
from flame_core.project.asking import Wanted
from flame_core.project.creation import create, removed_on_failure, require_new
from flame_core.project.data_survey import Given, survey
from flame_core.project.params_file import params_text, require_valid
from flame_core.reporting import console, facts, starting
from flame_core.shipped import shipped

_FEW = 100  # pictures
_GO_ON = """\
Go on with
  cd {folder}
  flame params check          # does all fit?
  flame run                   # the pipeline, up to data/reports/flame/report.html
  flame query "a small bird"  # ask the model"""


def initialise(wanted: Wanted) -> None:
    """Make the project.

    Raises:
        FlameError: the folder is not empty, or the data cannot be used; nothing is left behind.
    """
    root = expanded(wanted.folder).resolve()
    require_new(root)
    with removed_on_failure(root):
        with clear_output_errors(root, "the folder"):
            root.mkdir(parents=True, exist_ok=True)
        params = shipped("params.yaml").read_text("utf-8") if wanted.data is None else _params(wanted, wanted.data)
        require_valid(params, root / "params.yaml")
        starting("flame init: dvc init")
        files = create(root, params)
    facts(f"{root}", {"written": ", ".join(name for name in files if not name.startswith("recipes/")) + ", recipes/"})
    folder = str(wanted.folder)
    folder = shlex.quote(f"./{folder}" if folder.startswith("-") else folder)
    console.print(_GO_ON.format(folder=folder), markup=False, highlight=False, soft_wrap=True)


def _params(wanted: Wanted, given: Given) -> str:
    """The text of `params.yaml` for the data; tells what they hold."""
    root = expanded(wanted.folder).resolve()
    starting(f"flame init: looks at {given.path}")
    found = survey(given, Layout(root, root))
    facts(f"Found in {given.path}", found.facts)
    if found.usable < _FEW:
        console.print(
            f"{found.usable} pictures are few: expect a model that knows them, and little beyond.", soft_wrap=True
        )
    return params_text(found, root, wanted.device)
