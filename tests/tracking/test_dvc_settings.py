"""DVC finds the project's remotes and cache from another folder."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("dvc")

from flame_core.layout import Layout
from flame_core.tracking.dvc_settings import copy_dvc_settings, dvc_output

CONFIG = """\
[core]
    remote = store
['remote "store"']
    url = ../../store  # beside the project
['remote "ssh"']
    url = ssh://host/store
    keyfile = keys/id
['remote "spaced"']
    url = "../../a, b"
['remote "home"']
    url = ~/store
['remote "bucket"']
    url = s3://bucket/flame
"""
LOCAL = """\
[core]
    no_scm = false
['remote "bucket"']
    access_key_id = me
"""


@pytest.mark.parametrize("above", [False, True])
def test_remotes_and_cache_are_those_of_the_project(tmp_path: Path, above: bool) -> None:
    top = tmp_path / "project"
    project = top / "sub" if above else top
    project.mkdir(parents=True)
    assert dvc_output(top, "init", "--no-scm", "--quiet") is not None
    (top / ".dvc/config").write_text(CONFIG)
    (top / ".dvc/config.local").write_text(LOCAL)
    (top / ".dvc/config.local").chmod(0o600)
    root = project / ".flame/reproduce/1"
    copy_dvc_settings(Layout.find(project), root)
    found = dvc_output(root, "config", "--list") or ""
    expected = {"core.remote=store", f"remote.store.url={tmp_path / 'store'}", "remote.bucket.url=s3://bucket/flame",
                "remote.bucket.access_key_id=me", "core.no_scm=true"}  # fmt: skip
    own = top / ".dvc"
    expected |= {f"remote.ssh.keyfile={own / 'keys/id'}", f"remote.spaced.url={tmp_path / 'a, b'}"}
    home = {f"remote.home.url={place}" for place in ("~/store", Path.home() / "store")}  # as DVC writes it
    assert home & set(found.splitlines())
    assert expected <= set(found.splitlines()) and "core.no_scm=false" not in found
    cache = dvc_output(root, "cache", "dir") or ""
    assert (root / cache.strip()).resolve() == top / ".dvc/cache"
    assert (root / ".dvc/config.local").stat().st_mode & 0o077 == 0
