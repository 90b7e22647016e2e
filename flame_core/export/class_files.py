"""The zero-shot head as files, for the formats whose model cannot hold it, and the lines that apply it."""

from __future__ import annotations

from pathlib import Path

from flame_core.digest import write_json
from flame_core.export.zero_shot import ZeroShot
from flame_core.text.tensor_file import write_tensors

WEIGHTS, NAMES, TENSOR = "classes.safetensors", "classes.json", "classes"
FILES = {WEIGHTS: "`classes` [C, D]: the texts of the classes, unit length", NAMES: "the names of the classes"}
PROGRAM = f"""\

classes = load_file("{WEIGHTS}")["{TENSOR}"]
logits = vectors @ classes.T  # cosines with the texts of the classes
names = json.load(open("{NAMES}", encoding="utf-8"))
print(names[int(logits[0].argmax())])
"""


def write_classes(head: ZeroShot, folder: Path) -> None:
    """Write the weights and the names."""
    write_tensors(folder / WEIGHTS, {TENSOR: head.vectors}, "float32")
    write_names(head, folder)


def write_names(head: ZeroShot, folder: Path) -> None:
    """Write the names, in the order of the weights."""
    write_json(folder / NAMES, head.names)
