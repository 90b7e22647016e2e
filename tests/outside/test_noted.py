"""What notes of earlier stages say of files that have changed since."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from flame_core.layout import Layout
from flame_core.outside.noted import note, note_first, noting
from flame_core.workspace import dvc, dvc_cache, environment, resolve_params
from tests.outside.projects import (
    add,
    changed,
    note_seen,
    of_a_baseline,
    set_up_dvc,
)


def test_what_was_seen_counts_and_what_is_there_without_a_note_does_not(layout: Layout):
    params, pictures = resolve_params(layout, [], None).params, layout.root.parent / "pictures"
    assert changed(layout) == {"download": ["mine"]}  # nothing was read yet
    layout.raw.mkdir(parents=True)
    assert changed(layout) == {}  # pulled: this machine need not have the folder
    note_first(params, layout, ())
    assert changed(layout) == {}
    for change in (
        lambda: add(pictures, 10),
        lambda: (pictures / "0.png").unlink(),
        lambda: (pictures / "1.txt").write_text("edited by hand"),
        lambda: (pictures / "2.txt").rename(pictures / "two.txt"),
        lambda: (pictures / "3.txt").rename(os.fsdecode(os.fsencode(pictures) + b"/\xff.txt")),
    ):
        change()
        assert changed(layout) == {"download": ["mine"]}
        note_seen(params, layout, "download")
        assert changed(layout) == {}
    shutil.rmtree(pictures)  # the data are in data/raw
    assert changed(layout) == {}


def test_a_workspace_has_its_own_note(layout: Layout):
    params = resolve_params(layout, [], None).params
    note_seen(params, layout, "download")
    workspace = layout.state / "runs/0123456789ab"
    workspace.mkdir(parents=True)
    for name in ("params.yaml", "recipes"):
        (workspace / name).symlink_to(layout.root / name)
    own = Layout.find(workspace)
    assert changed(layout) == changed(own) == {}  # DVC's cache has what the project read
    note_first(params, own, ())
    add(layout.root.parent / "pictures", 10)
    note_seen(params, layout, "download")
    assert changed(layout) == {} and changed(own) == {"download": ["mine"]}


def test_a_damaged_note_is_no_note(layout: Layout):
    params = resolve_params(layout, [], None).params
    note_seen(params, layout, "download")
    (place,) = (layout.state / "sources").iterdir()
    for damaged in ("{", "[]", '{"download": 1}'):
        place.write_text(damaged)
        assert changed(layout) == {"download": ["mine"]}
    note_seen(params, layout, "download")
    assert json.loads(place.read_text()).keys() == {"download"} and changed(layout) == {}


def test_stages_that_end_at_the_same_time_all_keep_their_notes(layout: Layout):
    names = [f"train@{number}" for number in range(100)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda name: note(layout, name, {"teacher": name}), names))
    (place,) = (layout.state / "sources").iterdir()
    assert json.loads(place.read_text()) == {name: {"teacher": name} for name in names}


def of_run_cache(layout: Layout) -> list[str]:
    return sorted(path.read_text().splitlines()[0] for path in (dvc_cache(layout) / "runs").glob("*/*/*"))


@pytest.mark.parametrize("above", [False, True])
def test_the_run_cache_keeps_nothing_that_was_made_of_other_files(layout: Layout, above: bool):
    """Also none whose file has gone, or where DVC was set up in a folder above the project."""
    if above:
        options = ("init", "--no-scm", "--quiet")
        subprocess.run([*dvc(), *options], cwd=layout.root.parent, env=environment(), check=True)
    else:
        set_up_dvc(layout)
    net = of_a_baseline(layout)
    net.write_bytes(b"weights")
    params = resolve_params(layout, [], None).params
    for remove in (False, True):
        for number, command in enumerate(("flame baselines", "flame compare")):
            run = dvc_cache(layout) / f"runs/aa/{number}/0"
            run.parent.mkdir(parents=True, exist_ok=True)
            run.write_text(f"cmd: {command}\n")
        with noting(params, layout, "baselines"):
            if remove:
                net.unlink()
        assert of_run_cache(layout) == ["cmd: flame compare"]
    with noting(params, layout, "baselines"):  # sees that it has gone
        (dvc_cache(layout) / "runs/aa/0").mkdir()
        (dvc_cache(layout) / "runs/aa/0/0").write_text("cmd: flame baselines\n")
    assert of_run_cache(layout) == ["cmd: flame compare"]
    assert [path.name for path in (dvc_cache(layout) / "runs/aa").iterdir()] == ["1"]  # DVC fails at an empty folder
