"""What `make clean` removes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from flame_core.layout import Layout

ROOT = Path(__file__).parents[1]


def test_clean_removes_every_out_and_nothing_else():
    shown = subprocess.run(["make", "-n", "clean"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    removed = set(re.findall(r"\bdata/[\w/*-]+", shown))
    layout = Layout.find(ROOT)
    own = [getattr(layout, name) for name, kind in vars(Layout).items() if isinstance(kind, property)]
    outs = {path.relative_to(ROOT).as_posix() for path in own if isinstance(path, Path) and layout.data in path.parents}
    of_names = {"data/models", "data/reports", "data/sidecars/score-*"}  # each holds one folder per recipe or scorer
    assert removed == outs - {"data/embeddings/train"} | of_names
