"""What brings an out that is not on this machine: DVC if `dvc.lock` records it, else the stage that makes it.

A clone has `dvc.lock` but no outs, and computing them anew may take hours that a `dvc pull` does not.
"""

from __future__ import annotations

from configparser import ConfigParser
from configparser import Error as ConfigError
from pathlib import Path

from flame_core.dvc_project.recorded import LOCK, out_digests

_DATA = "data"
_COMMANDS = {"raw": "download", "llm": "fetch-llm", "shards": "ingest", "captions": "caption", "embeddings": "embed"}
_COMMANDS |= {
    "llm-adapter": "adapt-llm",
    "clusters": "cluster",
    "lexical": "lexical",
    "prompts": "prompts",
    "concepts": "concepts",
    "concept-weights": "concepts",
    "concept-fit": "concept-fit",
    "codes": "codes",
    "similarity": "codes",
    "selections": "select",
    "features": "features",
    "noise": "noise",
    "semdedup": "semdedup",
    "scores": "scores",
    "domains": "domains",
    "heads": "tune",
    "captioner": "caption-lm",
    "models": "train",
    "reports": "evaluate",
    "baselines": "baselines",
    "comparison": "compare",
}


def making(out: Path) -> str:
    """The command that makes an out, or the out that a folder is in, again."""
    if out.name in _COMMANDS:
        return f"flame {_COMMANDS[out.name]}"
    if out.name.startswith("score-"):
        return "flame scores"
    names = [folder.name for folder in out.parents]
    inside = (out, *out.parents)[: names.index(_DATA) if _DATA in names else 1]  # outside a project: the nearest folder
    place = next((each for each in inside if each.parent.name in _COMMANDS), out)
    stage = _COMMANDS.get(place.parent.name)
    if stage in ("train", "evaluate"):
        return f"flame {stage} {place.name}"
    return f"flame {stage}" if stage else "flame run"


def bringing(out: Path) -> str:
    """What to do about an out, or a folder in one, that is not there: "run `dvc pull data/shards` ..."."""
    by_stage = making(out)
    if command := dvc_command(out):
        return f"run `{command}`, which brings what dvc.lock records; `{by_stage}` makes it again"
    return f"run `{by_stage}` first" + ("" if by_stage == "flame run" else " (`flame run` runs all)")


def dvc_command(out: Path) -> str:
    """What brings an out, or the out that a folder is in, as `dvc.lock` records it: `dvc pull ...`; "" if nothing."""
    recorded = _recorded(out.absolute())
    return _command(*recorded) if recorded else ""


def absent(place: Path) -> str:
    """That a place does not exist, and what brings it if `dvc.lock` records it; for the end of an error."""
    command = dvc_command(place)
    return f"{place} does not exist" + (f"; `{command}` brings what dvc.lock records" if command else "")


def _recorded(place: Path) -> tuple[Path, str, str] | None:
    """(folder of the nearest `dvc.lock`, path, DVC's digest) of the out that is this place or has it inside."""
    root = next((folder for folder in place.parents if (folder / LOCK).is_file()), None)
    if root is None:
        return None
    inside = (place, *place.parents)
    return next(((root, path, digest) for path, digest in out_digests(root).items() if root / path in inside), None)


def _command(root: Path, path: str, digest: str) -> str:
    """The command that brings an out from a remote, or from DVC's cache if there is none; "" if neither is there."""
    folder = next((each / ".dvc" for each in (root, *root.parents) if (each / ".dvc").is_dir()), None)
    if folder is None:
        return ""
    config = ConfigParser(interpolation=None, strict=False)
    try:
        config.read([folder / "config", folder / "config.local"], "utf-8")
    except (ConfigError, OSError, UnicodeDecodeError):  # DVC says what is wrong
        return ""
    if remotes := [name.strip("'") for name in config.sections() if name.startswith("'remote ")]:
        first = "" if config.has_option("core", "remote") else f" -r {remotes[0].split(' ', 1)[1].strip(chr(34))}"
        return f"dvc pull{first} {path}"
    cache = folder / Path(config.get("cache", "dir", fallback="cache")).expanduser()
    return f"dvc checkout {path}" if (cache / "files" / "md5" / digest[:2] / digest[2:]).exists() else ""
