"""Templates of class prompts: a text with `{c}` where the name of the class stands, or OpenAI's `{}`."""

from __future__ import annotations

CLASS = "{c}"
_OPENAI = "{}"


def written(template: str) -> str:
    """The template with `{c}`; one that has `{c}` already stays as it is."""
    return template if CLASS in template else template.replace(_OPENAI, CLASS)
