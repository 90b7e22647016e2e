"""Foreign texts through a real Markdown parser: what comes out is the text alone."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from flame_core.markdown import code_span, plain_text

HOSTILE = [
    "[x](javascript:alert(1))",
    "![x](http://127.0.0.1/pixel.png)",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "a | b",
    "`a` ``b``",
    "*bold* **bold** ~~gone~~",
    "first\n\n# heading\n- item",
    "\\",
    "[ref]: http://127.0.0.1",
    "a\\`b`c",
    "`",
]
MARKDOWN = MarkdownIt("js-default")  # GitHub's tables and strikethrough; elements as they stand


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_is_marked_up(text):
    flat = " ".join(text.split())
    document = MARKDOWN.parse(f"| a |\n|---|\n| says {plain_text(text)} |\n\nand {code_span(text)} end\n")
    inline = [token for token in document if token.type == "inline"]
    cell, sentence = inline[-2], inline[-1]
    assert [child.type for child in cell.children if child.type not in ("text", "text_special")] == []
    assert "".join(child.content for child in cell.children) == f"says {flat}"
    assert [child.type for child in sentence.children] == ["text", "code_inline", "text"]
    assert sentence.children[1].content == flat


def test_ordinary_texts_stay_as_they_are():
    for text in ("CC-BY-SA-4.0", "zh_CN, 3 pairs (new)", "smollm2-135m"):
        assert plain_text(text) == text
    assert code_span("d1.dir") == "`d1.dir`"
