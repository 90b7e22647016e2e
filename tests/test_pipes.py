"""What a stage reports reaches Dagster where Dagster started it, and nothing is imported where it did not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dagster_pipes import encode_param

SCRIPT = """
import logging, sys
from pathlib import Path
from flame_core import reporting
reporting.configure_logging("INFO")
logging.getLogger("flame_core.x").info("halfway")
reporting.facts("done", {"pairs": 4, "rate": 0.5, "fine": True, "where": Path("data"), "why": "because"})
reporting.table("samples", ["key", "text"], [["a", "one"], ["b", "[two]"]])
reporting.link("run", "http://localhost:5000/x")
def make():
    print("made")
    return b"<svg/>"
reporting.picture("plot", make, "svg+xml")
print("dagster_pipes" in sys.modules)
"""


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DAGSTER_PIPES")}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**clean, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def started_by_dagster(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """The variables that Dagster sets, and the file that messages go to."""
    context, messages = tmp_path / "context", tmp_path / "messages"
    names = ("asset_keys", "code_version_by_asset_key", "provenance_by_asset_key", "partition_key")
    unset = dict.fromkeys((*names, "partition_key_range", "partition_time_window", "job_name"))
    context.write_text(json.dumps({**unset, "run_id": "r", "retry_number": 0, "extras": {}}))
    messages.touch()
    return {
        "DAGSTER_PIPES_CONTEXT": encode_param({"path": str(context)}),
        "DAGSTER_PIPES_MESSAGES": encode_param({"path": str(messages)}),
    }, messages


def reported(messages: Path) -> tuple[list[str], dict[str, dict]]:
    """(log lines, metadata) that were sent."""
    lines, metadata = [], {}
    for line in messages.read_text().splitlines():
        message = json.loads(line)
        if message["method"] == "log":
            lines.append(message["params"]["message"])
        elif message["method"] == "report_custom_message":
            metadata |= message["params"]["payload"]["metadata"]
    return lines, metadata


def test_everything_is_sent_with_its_type(started_by_dagster) -> None:
    environment, messages = started_by_dagster
    run(SCRIPT, **environment)
    lines, metadata = reported(messages)
    assert "halfway" in lines
    types = {name: (value["type"], value["raw_value"]) for name, value in metadata.items()}
    assert types["pairs"] == ("int", 4)
    assert types["rate"] == ("float", 0.5)
    assert types["fine"] == ("bool", True)
    assert types["where"] == ("path", "data")
    assert types["why"] == ("text", "because")
    assert types["run"] == ("url", "http://localhost:5000/x")
    assert types["samples"][1]["records"] == [{"key": "a", "text": "one"}, {"key": "b", "text": "[two]"}]
    assert types["plot"] == ("md", "![plot](data:image/svg+xml;base64,PHN2Zy8+)")
    assert json.loads(messages.read_text().splitlines()[-1])["method"] == "closed"


def test_a_failure_keeps_what_was_sent_before(started_by_dagster) -> None:
    environment, messages = started_by_dagster
    script = "from flame_core import reporting; reporting.facts('x', {'pairs': 4}); import os; os._exit(0)"
    run(script, **environment)
    assert reported(messages)[1]["pairs"]["raw_value"] == 4


def test_without_dagster_nothing_is_imported_or_made() -> None:
    output = run(SCRIPT).stdout.splitlines()
    assert output[-1] == "False"
    assert "made" not in output


@pytest.mark.parametrize("silent", ["another rank", "a worker process"])
def test_only_the_first_process_reports(started_by_dagster, silent: str) -> None:
    environment, messages = started_by_dagster
    if silent == "another rank":
        run(SCRIPT, RANK="1", **environment)
    else:
        run(
            "import multiprocessing as m\n"
            "from flame_core import reporting\n"
            "if __name__ == '__main__':\n"
            "    p = m.get_context('fork').Process(target=reporting.facts, args=('x', {'pairs': 4}))\n"
            "    p.start(); p.join(); assert p.exitcode == 0\n",
            **environment,
        )
    assert messages.read_text() == ""


def test_a_large_picture_is_made_smaller(started_by_dagster) -> None:
    environment, messages = started_by_dagster
    run(
        "import io, os\n"
        "from PIL import Image\n"
        "from flame_core import reporting\n"
        "buffer = io.BytesIO()\n"
        "Image.frombytes('RGB', (900, 900), os.urandom(900 * 900 * 3)).save(buffer, 'png')\n"
        "reporting.picture('noise', buffer.getvalue, 'png')\n",
        **environment,
    )
    text = reported(messages)[1]["noise"]["raw_value"]
    assert text.startswith("![noise](data:image/jpeg;base64,")
    assert 50_000 < len(text) < 300_000
