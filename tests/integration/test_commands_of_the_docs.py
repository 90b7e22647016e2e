"""Every command that the README and the docs show runs as it is written there.

A page is one shell session, as for a reader who types along. Only what a reader puts in as well (a path, an id, a free
port) is filled in, and what cannot be run within minutes is looked at in another way; both stand in the tables below.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

from flame_core.layout import Layout
from tests.data.drawings import drawing, encoded
from tests.integration.conftest import ROOT, Tracked
from tests.ports import free_port

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), ROOT / "mlflow/README.md")
)
FENCE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)

# Commands that are not run: a reason, and what is run in their place.
MAKE = (r"make ([a-z-]+)", "it is what runs this test, or takes the whole machine", r"make -C {root} --dry-run \1")
BENCHMARK = (r"python -m (benchmarks\.\w+)", "it measures for minutes", r"(cd {root} && python -m \1 --help)")
ELSEWHERE = (
    MAKE,
    BENCHMARK,
    (r"\. \.venv/bin/activate", "the test's environment is active", "true"),
    (r"(?s)flame run (--preset .*flickr8k.*)", "it trains for an hour", r"flame params check \1"),
    (
        r"flame run (--preset demo-pretrained)( features caption)?",
        "it fetches a tower and trains for minutes",
        r"flame params check \1",
    ),
    (
        r"flame run (--set 'recipes=\[flame,tinyclip-auto,.*)",
        "masks need more steps than these data give (tests/stages/test_linked_training.py prunes)",
        r"flame params check \1",
    ),
    (
        r"(?s)FLAME_EMBED_PROCESSES=8 FLAME_TRAIN_PROCESSES=8 flame run (--preset .*cc3m.*)",
        "it trains for days",
        r"flame params check \1",
    ),
    (
        r"flame run (--set .*'text\.sentence=.*)",
        "the test's LLM has no layer 30 (tests/stages/test_embed.py reads sentences)",
        r"(cd {root} && flame params check \1)",
    ),
    (
        r"(?s)flame run (--set 'recipes=\[flame,tinyclip-manual,.*)",
        "the test's towers are smaller than these (tests/stages/test_linked_training.py trains students)",
        r"(cd {root} && flame params check \1)",
    ),
    (
        r"(?s)flame run (--set 'recipes=\[p-former-align\]'.*)",
        "prompts need more steps than a page has (tests/captioning/test_toy_gain.py learns them)",
        r"(cd {root} && flame params check \1)",
    ),
    (r"(?s)flame probe.*", "tests/commands/test_probe.py probes", "flame probe --help"),
    (r"flame data-card .*", "tests/serving/test_dataset_card.py writes one", "flame data-card --help"),
    (r"flame forget .*", "it deletes (tests/forgetting/ does)", "flame forget --help"),
    (r"git (show|add) .*opt_out\.parquet.*", "no merge is under way (tests/forgetting/ forgets such a file)", "true"),
    (r"flame lineage (--contains) .*", "the page's sample is not there", r"flame lineage \1 nobody/nothing"),
    (r"vllm serve .*", "it is another package, and needs a GPU", "true"),
    (r"flame describe .*", "it needs a trained captioner", "flame describe --help"),
    (r"flame run (--preset demo-gemma)", "it fetches 240 MB and embeds for minutes", r"flame params check \1"),
    (r"flame run (--set 'concepts\.[^']*') concepts", "tests/stages/test_concepts.py counts", r"flame params check \1"),
    (r"flame run (--set 'adapt_llm=.*)", "tests/stages/test_adapt_llm.py trains", r"flame params check \1"),
    (r"flame concepts (rare|test-set) .*", "it needs counts, or gathered pictures", r"flame concepts \1 --help"),
    (r"pip (wheel|install) .*", "tests/project/test_wheel.py builds and installs it", r"pip \1 --help"),
    (r"flame ui", "tests/orchestration/ui/test_servers.py opens it", "flame ui --help"),
    (r"flame --install-completion", "it writes into the shell's own files", "flame --show-completion bash"),
    (r"flame --show-completion", "it asks which shell runs it, and a test has none", "flame --show-completion bash"),
    (
        r"(uv venv elsewhere|elsewhere/bin/mlflow).*",
        "it installs several gigabytes",
        "test -f champion/requirements.lock",
    ),
)
# What must have happened before a command: what a reader has done, too.
BEFORE = {
    "dvc remote add": "dvc remote remove store || true",  # of another page
    "experiments restore": "mlflow experiments delete --experiment-id 1",
    "runs restore": "mlflow runs delete --run-id {run}",
}
# Answers that are no failure.
ANSWERS = {
    r"flame diff .*": (1, "something differs"),
    r"flame params check .*text\.layer=31": (2, "the page shows how a mistake is reported"),
    r"flame query --lexical .*": (2, "the test's model has no words; tests/search/test_words.py asks one that has"),
}
SERVERS = ("make ui", "mlflow models serve", "bash mlflow/server.sh", "flame serve", "flame ui")
STOP = "jobs -p | xargs -r kill; wait"  # one server at a time
LONGEST = 900  # seconds for a page


@dataclass(frozen=True)
class Command:
    """One command of a page, with its continuation lines and its comment."""

    page: str
    block: int
    text: str

    @property
    def elsewhere(self) -> tuple[str, str] | None:
        """Why it is not run, and what is run in its place."""
        for pattern, why, instead in ELSEWHERE:
            if found := re.match(pattern, self.text):
                return why, found.expand(instead)
        return None


def without_comment(text: str) -> str:
    return re.sub(r"\s+#.*$", "", text)


def commands(page: str) -> list[Command]:
    blocks = FENCE.findall((ROOT / page).read_text("utf-8"))
    return [
        Command(page, number, text.rstrip())
        for number, block in enumerate(blocks)
        for text in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    ]


WITH_COMMANDS = [page for page in PAGES if commands(page)]


def test_the_tables_hold_nothing_that_no_page_shows():
    shown = [command.text for page in PAGES for command in commands(page)]
    assert len(shown) > 60
    for pattern, *_ in ELSEWHERE:
        assert any(re.match(pattern, text) for text in shown), pattern
    for pattern in ANSWERS:
        assert any(re.match(pattern, text) for text in shown), pattern
    for part in BEFORE:
        assert any(part in text for text in shown), part


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_options_of_benchmarks_exist(page: str):
    for command in commands(page):
        if found := re.match(BENCHMARK[0], command.text):
            words = shlex.split(command.text, comments=True)
            source = (ROOT / found[1].replace(".", "/")).with_suffix(".py").read_text("utf-8")
            shared = "".join((ROOT / f"benchmarks/{name}.py").read_text("utf-8") for name in ("measure", "comparison"))
            for option in (word for word in words if word.startswith("--")):
                assert f'"{option}"' in source + shared, command.text


@dataclass(frozen=True)
class Reader:
    """Someone with a project, two trained models and some pictures, who types what a page says."""

    project: Tracked
    home: Path
    stand_ins: dict[str, str]

    def script(self, page: str) -> str:
        lines = ["set -euo pipefail", f"trap '{STOP}' EXIT"]
        for _, block in groupby(commands(page), key=lambda command: command.block):
            own = list(block)
            elsewhere = any(command.text.startswith("cd ") for command in own)  # a project of its own, without records
            lines += ['( export FLAME_TRACKING_URI=off; cd "$(mktemp -d)"'] if elsewhere else []
            for command in own:
                lines += [f"echo {shlex.quote('$ ' + command.text)}", *self._lines(command)]
            lines += [")"] if elsewhere else []
        return "\n".join(lines)

    def _lines(self, command: Command) -> list[str]:
        if elsewhere := command.elsewhere:
            return [self._filled(elsewhere[1])]
        before = [self._filled(line) for part, line in BEFORE.items() if part in command.text]
        text = self._filled(command.text)
        for pattern, (code, _) in ANSWERS.items():
            if re.match(pattern, command.text):
                return [*before, f"{{ {without_comment(text)}; }} && exit 99 || test $? -eq {code}"]
        if not any(server in text for server in SERVERS):
            return [*before, text]
        port = re.search(r"(?:--port |_PORT=|127\.0\.0\.1:)(\d+)", text)
        assert port, f"{command.text}: the test must know its port"
        answers = f"curl -s -o /dev/null http://127.0.0.1:{port[1]}/"
        return [*before, STOP, without_comment(text) + " &", f"until {answers}; do kill -0 $!; sleep 0.5; done"]

    def _filled(self, text: str) -> str:
        for given, own in self.stand_ins.items():
            text = text.replace(given, own)
        return text

    def type(self, page: str) -> subprocess.CompletedProcess[str]:
        scripts = Path(sys.executable).parent
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(scripts), os.environ["PATH"]]),
            "HOME": str(self.home),
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
            "FLAME_TRACKING_URI": self.project.address,
            "MLFLOW_PYTHON": sys.executable,
            "OMP_NUM_THREADS": "2",
        }
        process = subprocess.Popen(
            ["bash", "-c", self.script(page)],
            cwd=self.project.root,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            said, _ = process.communicate(timeout=60)
            return subprocess.CompletedProcess(process.args, 124, f"{said}\nstill running after {LONGEST} s")
        except BaseException:  # the shell's servers end with it
            os.killpg(process.pid, signal.SIGTERM)
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, said)


@pytest.fixture(scope="module")
def reader(tracked: Tracked, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Versions 1 to 3, of which 2 is the champion and 3 the challenger, and a workspace."""
    tracked.change({"promote": {"tolerance": 1.0, "min_gain": -1.0}})
    for seed in (1, 2):
        tracked.change({"train": {"seed": seed}})
        tracked.flame("run")
        if seed == 1:
            tracked.flame("promote")
    tracked.flame("run", "--set", "train.epochs=5")
    (workspace,) = (tracked.root / ".flame/runs").iterdir()
    home = tmp_path_factory.mktemp("home")
    for number, path in enumerate((tracked.root / "bird.jpg", tracked.root / "boat.jpg", home / "Pictures/a/one.jpg")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(drawing(number, (60, 50)), "JPEG"))
    shutil.copy(tracked.root / "bird.jpg", home / "Pictures/two.jpg")
    for name in ("presets", "mlflow"):
        shutil.copytree(ROOT / name, tracked.root / name)
    shards = tmp_path_factory.mktemp("shards")
    shutil.copy(next(Layout.find(tracked.root).shards.glob("train/*.tar")), shards / "flickr8k-train-00000.tar")
    shutil.copy(next(Layout.find(tracked.root).shards.glob("val/*.tar")), shards / "flickr8k-val-00000.tar")
    version, port = tracked.client.get_model_version("flame", "1"), free_port()
    return Reader(
        tracked,
        home,
        {
            "{root}": str(ROOT),
            "{run}": version.run_id,
            "<id>": version.run_id,
            "runs:/0a1b...": f"runs:/{version.run_id}",
            "3f2a9c01d4e7": workspace.name,
            "data/models/flame-facets": str(workspace / "data/models/flame"),
            "/path/to/shards": str(shards),
            "/path/to/pictures": str(pictures),
            "/mnt/shared/flame": str(tmp_path_factory.mktemp("remote")),
            "sqlite:///.flame/mlflow/mlflow.db": f"sqlite:///{tracked.root}/.flame/mlflow/mlflow.db",
            "PROCESSES=8": "PROCESSES=2",
            "cluster.clusters=40": "cluster.clusters=8 --set cluster.dims=8",  # of a few dozen captions
            "5001": str(free_port()),
            "bash mlflow/server.sh": f"MLFLOW_PORT={port} bash mlflow/server.sh",
            "http://127.0.0.1:5000": f"http://127.0.0.1:{port}",
            ".venv/bin/python": sys.executable,
        },
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_every_command_of_a_page_runs(reader: Reader, page: str):
    done = reader.type(page)
    assert done.returncode == 0, done.stdout
