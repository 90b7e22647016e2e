"""The measurements on a GPU, in parts, each a process with a time limit.

    python -m benchmarks.on_gpu                               # the usual parts (`make bench-gpu`): five minutes
    python -m benchmarks.on_gpu training masked               # some, and some that are measured by name only
    python -m benchmarks.on_gpu text --pairs flickr8k-train-00000.tar    # captions that people wrote
    python -m benchmarks.on_gpu text --pairs ... --tokenizer folder      # where `make demo` cannot run

Each part prints one line of JSON: its seconds, how it ended, and its figures, which are also in `results.jsonl`. At its
limit a part is interrupted, and records the turns that are whole by then. The packages that users would take instead,
open_clip and sentence-transformers, are not among this project's; `make bench-gpu` puts them into `.flame/bench`, and
where they are missing, their part says so.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import RESULTS, matmul_ceiling, record
from flame_core.settings import settings

ROOT = Path(__file__).parents[1]
OTHERS = ROOT / ".flame" / "bench"  # packages that only benchmarks use
TEXT = "text_engine --shape nemo --layers 20 --pictures 400 --turns 2"
TRAINING = "training_step --tower vit_b16 --batch 384 --turns 6"
GRACE = 20.0  # seconds in which an interrupted part records what it has measured


@dataclass(frozen=True)
class Part:
    """A benchmark's module with its arguments, its time limit in seconds, and a package that it needs."""

    arguments: str
    limit: int
    package: str | None = None


PARTS = {
    "ceiling": Part("on_gpu --measure-ceiling", 30),
    "text": Part(f"{TEXT} --cases packed,separate,padded", 240),
    "sentence-transformers": Part(f"{TEXT} --cases packed,sentence-transformers", 100, "sentence_transformers"),
    "training": Part(f"{TRAINING} --cases slow~way,ours,pieces,compiled --profile compiled", 120),
    "open_clip": Part(f"{TRAINING} --cases compiled,open_clip", 100, "open_clip"),
    "float8": Part(f"{TEXT} --cases packed,float8", 300),
    "loaded": Part("loaded_steps --tower vit_b16 --batch 384 --steps 12 --decoders pil,torchvision,nvjpeg", 120),
    "evaluation": Part("evaluation_speed --tower vit_b16", 120),
    "masked": Part("masked_step --batch 256 --turns 20 --cases whole~picture,half~of~one~view", 150),
    "lift": Part("lift_cost --measure --batch 256 --turns 10", 240),
}  # a ~ stands for a space
BY_NAME = ("float8", "loaded", "evaluation", "masked", "lift")  # the others are the usual ones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = [name for name in PARTS if name not in BY_NAME]
    parser.add_argument("parts", nargs="*", default=usual, metavar="part", help=", ".join(PARTS))
    parser.add_argument("--pairs", type=Path, help="a tar of pairs for the text engine, instead of the demo's captions")
    parser.add_argument("--tokenizer", type=Path, help="a folder with a tokenizer for it, instead of the demo's")
    parser.add_argument("--measure-ceiling", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_ceiling:
        measure_ceiling()
        return
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    given = {"--pairs": options.pairs, "--tokenizer": options.tokenizer}
    of_text = [word for name, path in given.items() if path is not None for word in (name, str(path.absolute()))]
    failed = False
    for name in options.parts:
        outcome = run_part(PARTS[name], of_text)
        print(json.dumps({"part": name, **outcome}), flush=True)
        failed |= outcome["ended"] not in ("done", "left out")
    raise SystemExit(failed)


def run_part(part: Part, of_text: Sequence[str] = ()) -> dict[str, Any]:
    """Run a part in a process, with `of_text` if it is the text engine's; its output goes to standard error.

    Returns:
        `ended`: done, left out (with the reason in `why`), too long, or failed; `seconds`; `figures` by case.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(OTHERS), os.environ.get("PYTHONPATH", "")])}
    if part.package and not has_package(part.package, environment):
        return {"ended": "left out", "why": f"{part.package} is not installed, also not in {OTHERS.relative_to(ROOT)}"}
    module, *arguments = part.arguments.split()
    command = [sys.executable, "-m", f"benchmarks.{module}", *(each.replace("~", " ") for each in arguments)]
    command += of_text if module == "text_engine" else []
    before, start = len(recorded()), time.monotonic()
    running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sys.stderr, start_new_session=True)
    try:
        ended = "done" if running.wait(part.limit) == 0 else "failed"
    except subprocess.TimeoutExpired:
        ended = "too long"
        running.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            running.wait(GRACE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)  # with its own children, which would keep the GPU
        running.wait()
    figures = {f"{line['benchmark']}: {line['case']}": [line["figure"], line["unit"]] for line in recorded()[before:]}
    return {"ended": ended, "seconds": round(time.monotonic() - start, 1), "figures": figures}


def has_package(name: str, environment: dict[str, str]) -> bool:
    """Whether a package can be imported in this environment."""
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({name!r}) is None)"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=False).returncode == 0


def recorded() -> list[dict[str, Any]]:
    """The lines of `results.jsonl`."""
    lines = RESULTS.read_text("utf-8").splitlines() if RESULTS.is_file() else []
    return [json.loads(line) for line in lines]


def measure_ceiling() -> None:
    """Record what a large square matrix product reaches."""
    device = settings().torch_device()
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        record("ceiling", f"matrix product in {name}", matmul_ceiling(device, dtype) / 1e9, "GFLOP/s")


if __name__ == "__main__":
    main()
