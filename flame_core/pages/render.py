"""Renders the templates of this package to self-contained pages: styles inside, no scripts, nothing fetched.

Captions, keys and names are untrusted, so every value is escaped; a content security policy in the page also forbids
any fetch. Charts are the only markup that is not escaped here; `charts` escapes its inputs.
"""

from __future__ import annotations

import json
from typing import Any

from flame_core import gates
from flame_core.language_names import html_language, language_name
from flame_core.pages.charts import stylesheet


def render(template: str, **values: Any) -> str:
    """A page from `templates/<template>`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("flame_core.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "thousands": lambda value: f"{value:,}",
        "language_name": language_name,
        "html_language": html_language,
        "chart": Markup,
        "web_address": web_address,
        "shown": gates.shown,
        "pretty_json": lambda value: json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False),
    }
    environment.globals["style"] = Markup(stylesheet("charts.css") + stylesheet("page.css"))
    return environment.get_template(template).render(**values) + "\n"


def web_address(url: str | None) -> str:
    """`url` if a page may link to it; `#` for any other, such as one that runs a script."""
    return url if url and url.startswith(("http://", "https://")) else "#"


def percent(value: float) -> str:
    """`31.2 %`, with a narrow no-break space."""
    return f"{value * 100:.1f}\u202f%"


def points(value: float) -> str:
    """A difference in percentage points: `+1.2`, `−0.4`, `+0.0`."""
    return f"{round(value * 100, 1) + 0.0:+.1f}".replace("-", "−")
