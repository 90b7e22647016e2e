"""The champion outside the project: with the packages it names and no others, and behind MLflow's scoring server."""

from __future__ import annotations

import base64
import importlib.metadata
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

from tests.integration.conftest import Tracked
from tests.ports import free_port

pytestmark = pytest.mark.slow
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><circle cx="32" cy="32" r="20" fill="red"/></svg>'
ASK = """\
import json, sys
import mlflow, pandas as pd

model = mlflow.pyfunc.load_model("models:/flame@champion")
image, drawing = sys.argv[1:]
found = model.predict(pd.DataFrame({"image": [image, drawing], "text": ["a bird", "a boat"]}))
labels = model.predict(pd.DataFrame({"image": [image]}), params={"task": "classify", "top": 2})["labels"][0]
code = next(module.__file__ for name, module in sys.modules.items() if name == "flame_core.serving.predictor")
print(json.dumps({"z": found["image_embedding"][0], "labels": labels, "code": code, "modules": sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def requirements(tracked: Tracked, tmp_path_factory: pytest.TempPathFactory) -> list[Requirement]:
    """What the champion's requirements.txt lists."""
    import mlflow

    assert tracked.client
    folder = tmp_path_factory.mktemp("requirements")
    path = Path(mlflow.artifacts.download_artifacts("models:/flame@champion/requirements.txt", dst_path=str(folder)))
    return [Requirement(line) for line in path.read_text().splitlines() if line]


@pytest.fixture(scope="module")
def answer(tracked: Tracked, requirements: list[Requirement], pictures: Path, tmp_path_factory) -> dict:
    """What the champion says in another folder, where only its requirements and what they require can be imported.

    The same packages in a virtual environment of their own take gigabytes; here they are linked from this one.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    (packages := folder / "packages").mkdir()
    for distribution in closure(requirements):
        for part in {path.parts[0] for path in distribution.files or () if path.parts[0] not in ("..", "__pycache__")}:
            if not (packages / part).exists():
                (packages / part).symlink_to(Path(str(distribution.locate_file(part))))
    (folder / "drawing.svg").write_text(SVG)
    shutil.copy(sorted(pictures.rglob("*.png"))[0], folder / "bird.png")
    own = {"PYTHONPATH": str(packages), "MLFLOW_TRACKING_URI": tracked.address, "HF_HUB_OFFLINE": "1"}
    own |= {"FLAME_SERVING_PATHS": str(folder)}
    own |= {"FLAME_SERVING_LLM": str(tracked.root / "data/llm/smollm2"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", ASK, "bird.png", "drawing.svg"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **own},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def closure(requirements: list[Requirement]) -> list[importlib.metadata.Distribution]:
    """The distributions that they are, and all that those require here."""
    found: dict[str, importlib.metadata.Distribution] = {}
    wanted = [(requirement, {""} | requirement.extras) for requirement in requirements]
    while wanted:
        requirement, extras = wanted.pop()
        distribution = importlib.metadata.distribution(requirement.name)
        name = f"{distribution.name}{sorted(extras)}"
        if name in found:
            continue
        found[name] = distribution
        for line in distribution.requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                wanted.append((needed, {""} | needed.extras))
    return list(found.values())


def test_every_requirement_is_pinned_to_what_trained_it(requirements: list[Requirement]) -> None:
    pinned = {requirement.name: str(requirement.specifier) for requirement in requirements}
    assert {"mlflow", "torch", "timm", "transformers"} <= pinned.keys()
    assert pinned == {name: f"=={importlib.metadata.version(name)}" for name in pinned}


def test_they_are_enough_in_another_folder_without_the_project(answer: dict, tracked: Tracked) -> None:
    assert abs(sum(x * x for x in answer["z"]) - 1) < 1e-5 and len(answer["labels"]) == 2
    assert "/artifacts/" in answer["code"]  # the model's own copy of the code
    for name in ("dvc", "dagster", "typer", "accelerate", "gguf", "webdataset"):
        assert name not in answer["modules"]


def test_none_of_them_is_idle(answer: dict, requirements: list[Requirement]) -> None:
    imported = {name.partition(".")[0] for name in answer["modules"]}
    homes = importlib.metadata.packages_distributions()
    used = {home.lower() for module in imported for home in homes.get(module, ())}
    used.add("resvg-py")  # draws the SVG in a process of its own
    assert {requirement.name for requirement in requirements} <= used


@pytest.fixture(scope="module")
def served(tracked: Tracked, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `mlflow models serve` for the champion."""
    folder, port = tmp_path_factory.mktemp("serve"), free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/flame@champion"]
    own = {"MLFLOW_TRACKING_URI": tracked.address}
    own["FLAME_SERVING_LLM"] = str(tracked.root / "data/llm/smollm2")
    scripts = str(Path(sys.executable).parent)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env={**os.environ, **own, "PATH": os.pathsep.join([scripts, os.environ["PATH"]])},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 180
    while not _answers(address):
        assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.5)
    yield address
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=60)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/ping", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def ask(address: str, rows: list[dict], **params: object) -> list[dict]:
    """The rows that POST /invocations answers."""
    body = json.dumps({"dataframe_records": rows, "params": params}).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["predictions"]


def test_it_answers_over_http(served: str, pictures: Path) -> None:
    image = base64.b64encode(sorted(pictures.rglob("*.png"))[0].read_bytes()).decode()
    embedded = ask(served, [{"image": image}, {"image": f"data:image/png;base64,{image}"}])
    assert embedded[0] == embedded[1] and abs(sum(x * x for x in embedded[0]["image_embedding"]) - 1) < 1e-5
    [labelled] = ask(served, [{"image": image}], task="classify", top=2)
    assert len(labelled["labels"]) == 2 and labelled["scores"] == sorted(labelled["scores"], reverse=True)
    similar = ask(served, [{"image": image, "text": "a bird"}, {"image": None, "text": "a boat"}], task="similarity")
    first, second = (row["similarities"] for row in similar)
    assert len(first) == 2 and second is None  # the second row has no picture


def test_it_reads_no_file_of_the_server_and_fetches_nothing(served: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "png")
    (tmp_path / "here.png").write_bytes(buffer.getvalue())
    for image, message in ((str(tmp_path / "here.png"), "paths are off"), ("https://example.org/a.png", "addresses")):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(served, [{"image": image}])
        said = json.loads(refused.value.read())
        assert message in said["message"] and said.keys() == {"error_code", "message"}
        assert said["message"].startswith("picture 0: ")


def test_it_says_nothing_of_itself(served: str, tracked: Tracked) -> None:
    """Whatever is sent: no stack trace, and no place on the server's disk."""
    bodies = [
        ("application/json", b"{"),
        ("application/json", b'{"dataframe_records": [1, 2]}'),
        ("application/json", b'{"dataframe_records": [{"image": "AAAA"}], "params": {"top": "x"}}'),
        ("application/json", b'{"dataframe_records": [{"image": "AAAA"}], "params": {"task": "no"}}'),
        ("application/json", b'{"dataframe_split": {"columns": ["image"], "data": [[1, 2]]}}'),
        ("text/csv", b'"'),
        ("application/vnd.apache.parquet", b"PAR1"),
    ]
    for kind, body in bodies:
        request = urllib.request.Request(f"{served}/invocations", body, {"Content-Type": kind})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
        said = refused.value.read().decode()
        for mark in ("Traceback", "stack_trace", "site-packages", str(tracked.root), 'File "'):
            assert mark not in said, (kind, body, said)
