"""How a command of ours begins and ends, whatever it does: `begin`, then its work within `errors_in_a_sentence`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from flame_core.errors import FlameError, ResourceError
from flame_core.program.standard_streams import open_closed_streams
from flame_core.program.user_name import name_user
from flame_core.program.utf8_mode import in_utf8_mode


def begin() -> None:
    """Give the process what it may lack: UTF-8 mode, standard streams, a name of its user."""
    in_utf8_mode()
    open_closed_streams()
    name_user()


@contextmanager
def errors_in_a_sentence() -> Iterator[None]:
    """Errors that a user can mend end the process without a traceback, with their exit code."""
    try:
        yield
    except FlameError as error:
        end_with(str(error), error.exit_code)
    except OSError as error:
        from flame_core.files.disk_errors import disk_error, place_error

        if (refused := disk_error(error) or place_error(error)) is None:
            raise
        end_with(str(refused), refused.exit_code)
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith(("flame_core", "orchestration")):
            raise
        end_with(
            f"the Python package {error.name!r} is not installed: `pip install 'flame-mlops[pipeline]'` installs all",
            ResourceError.exit_code,
        )


def end_with(message: str, code: int) -> NoReturn:
    """End the process with an error."""
    from rich.markup import escape

    from flame_core.reporting import console

    console.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(code)
