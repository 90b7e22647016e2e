"""Reports of a stage arrive completely: long lines written in parts, and what is written last."""

# No postponed annotations here: Dagster inspects the annotation of an asset's context.

import json
import threading
import time
from pathlib import Path

import dagster as dg
from dagster_pipes import PipesMappingParamsLoader, open_dagster_pipes

from orchestration.dagster_dvc.pipes_messages import MessageReader, whole_lines


def test_what_is_written_just_before_the_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "messages"
    path.write_bytes(b"first\n")

    def ended() -> bool:
        with path.open("ab") as file:
            file.write(b"last\n")
        return True

    assert list(whole_lines(path, ended)) == [b"first", b"last"]


def test_a_line_in_parts_is_one_line_and_one_without_an_end_is_none(tmp_path: Path) -> None:
    path = tmp_path / "messages"
    path.touch()
    done = threading.Event()

    def write() -> None:
        for part in (b"lo", b"ng\nsh", b"ort\n", b"cut"):
            with path.open("ab") as file:
                file.write(part)
            time.sleep(0.12)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert list(whole_lines(path, done.is_set)) == [b"long", b"short"]
    writer.join()


def test_a_damaged_message_does_not_cost_those_after_it(instance: dg.DagsterInstance) -> None:
    seen: list[object] = []

    @dg.asset
    def reports(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with dg.open_pipes_session(context, dg.PipesEnvContextInjector(), MessageReader()) as session:
            place = session.message_reader_params["path"]
            with open_dagster_pipes(params_loader=PipesMappingParamsLoader(session.get_bootstrap_env_vars())) as pipes:
                pipes.report_custom_message({"picture": "x" * 300_000})
                with Path(place).open("a", encoding="utf-8") as file:
                    file.write("{damaged\n")
                pipes.report_custom_message({"picture": "small"})
        seen.extend(session.get_custom_messages())
        return dg.MaterializeResult()

    assert dg.materialize([reports], instance=instance).success
    assert [len(json.dumps(each)) for each in seen] == [300_015, 20]
