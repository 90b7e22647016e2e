"""Dagster's web server behind our guard (`guard.py`); `flame ui` starts it instead of `dagster-webserver`.

    DAGSTER_HOME=.flame/dagster python -m orchestration.ui.dagster_server .flame/dagster/workspace.yaml

It listens on `FLAME_UI_HOST` and `FLAME_DAGSTER_PORT`. `dagster dev` and `dagster-webserver` have no such guard.
"""

from __future__ import annotations

import sys

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.version import __version__
from starlette.types import ASGIApp

from flame_core.settings import settings
from flame_core.web_origin import host_names
from orchestration.ui.guard import WebGuard

_STATEMENT_MILLISECONDS, _POOL_RECYCLE_SECONDS, _POOL_OVERFLOW = 15_000, 3600, 20  # Dagster's own defaults
_REFRESH_MILLISECONDS = 2000  # between two refreshes of an open page


def guarded(app: ASGIApp) -> WebGuard:
    """An ASGI application behind the guard, with the host names from settings."""
    here = settings()
    return WebGuard(app, host_names(here.ui_host, here.ui_names))


def main() -> None:
    """Serve the workspace file in the only argument until SIGTERM."""
    here = settings()
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(_STATEMENT_MILLISECONDS, _POOL_RECYCLE_SECONDS, _POOL_OVERFLOW)
        target = WorkspaceFileTarget([sys.argv[1]])
        with WorkspaceProcessContext(instance, target, version=__version__) as context:
            app = create_app_from_workspace_process_context(context, live_data_poll_rate=_REFRESH_MILLISECONDS)
            uvicorn.run(guarded(app), host=here.ui_host, port=here.dagster_port, log_level="warning")


if __name__ == "__main__":
    main()
