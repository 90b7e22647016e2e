"""Prepares the store that `mlflow/server.sh` serves, so that MLflow's server finds it whole and of its own version.

    python -m flame_core.tracking.prepared_store .flame/mlflow            # prints the address of its database
    python -m flame_core.tracking.prepared_store .flame/mlflow postgresql+psycopg2://flame@db/mlflow

Locations follow a project that was copied or moved (`relocation.py`). A SQLite database is made as a whole or not at
all, and one of an earlier MLflow is kept beside itself until it is upgraded: MLflow cannot go on with a schema that is
half made or half upgraded. Other databases take a whole upgrade back by themselves.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from flame_core.errors import FlameError, ResourceError
from flame_core.files.whole_folders import scratch
from flame_core.tracking.address import sqlite_address, sqlite_path
from flame_core.tracking.relocation import relocate
from flame_core.tracking.store import before_upgrade, make_database, take_upgrade_back, trouble


def prepare(store: Path, address: str | None = None) -> str:
    """Make or upgrade the database of a store, or the one of an address; returns its address.

    One process at a time may do this.

    Raises:
        ResourceError: that cannot be done; the database is what it was.
    """
    own = store.absolute() / "mlflow.db"
    database = own if address is None else sqlite_path(address)
    if database is None:
        _upgrade(address or "")
        return address or ""
    take_upgrade_back(database)
    relocate(own)
    if not database.exists():
        make_database(database)
    elif not _is_current(database):
        _keep(database)
        try:
            _upgrade(sqlite_address(database))
        except ResourceError:
            take_upgrade_back(database)
            raise
        before_upgrade(database).unlink()
    return address or sqlite_address(own)


def _keep(database: Path) -> None:
    with scratch(database.parent) as folder:
        copy = folder / database.name
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        copy.replace(before_upgrade(database))


def _is_current(database: Path) -> bool:
    """Whether the schema is that of the installed MLflow."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    try:
        with closing(sqlite3.connect(database, timeout=60)) as connection:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.OperationalError:  # no such table
        return False
    except sqlite3.DatabaseError as error:
        raise ResourceError(trouble(sqlite_address(database), error)) from None
    return found == [(_get_latest_schema_revision(),)]


def _upgrade(address: str) -> None:
    done = subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", address], capture_output=True, text=True)
    if done.returncode:
        kind, database = address.partition("://")[0], sqlite_path(address)
        if database is not None:
            said = trouble(address, RuntimeError(done.stderr))
            if "another MLflow version" in said:
                raise ResourceError(said)
        raise ResourceError(
            f"cannot prepare the database {database or kind}; to see why: {sys.executable} -m mlflow db upgrade "
            f"{address if database else '<address>'}"
            + (". If its making was cut short and nothing is recorded in it, move it away" if database else "")
        )


def main() -> None:
    """Prepare the store in a folder, and print the address of its database."""
    try:
        sys.stdout.write(f"{prepare(Path(sys.argv[1]), *sys.argv[2:3])}\n")
    except FlameError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
