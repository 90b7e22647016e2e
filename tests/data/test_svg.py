from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from flame_core.data.svg import Renderer, SvgError, is_svg, render
from tests.data.drawings import png

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
SQUARE = f'{HEAD} viewBox="0 0 100 50"><rect width="50" height="50" fill="#ff0000"/></svg>'


def _picture(svg: str | bytes, side: int = 64) -> Image.Image:
    return Image.open(io.BytesIO(render(svg.encode() if isinstance(svg, str) else svg, side)))


def test_pixels_and_transparency():
    picture = _picture(SQUARE)
    assert (picture.size, picture.mode) == ((64, 32), "RGBA")
    assert picture.getpixel((10, 10)) == (255, 0, 0, 255)
    assert picture.getpixel((50, 10))[3] == 0


@pytest.mark.parametrize("size", ['width="30pt" height="60pt"', 'width="3cm" height="6cm"', 'width="9" height="18"'])
def test_sizes_in_any_unit_fill_the_box(size):
    assert _picture(f'{HEAD} {size}><rect width="9" height="9"/></svg>').size == (32, 64)


def test_other_encodings_than_utf8():
    text = f'<?xml version="1.0" encoding="ISO-8859-1"?>\n{SQUARE}'.replace("<rect", "<desc>é</desc><rect")
    assert _picture(text.encode("iso-8859-1")).size == (64, 32)


@pytest.mark.parametrize(
    "svg",
    ["<svg", f'{HEAD} width="0" height="5"/>', "<p>no svg</p>", f'{HEAD} width="9" height="9"><g></svg>'],
)
def test_broken_ones_are_refused(svg):
    with pytest.raises(SvgError):
        render(svg.encode(), 64)


@pytest.mark.parametrize(
    "bomb",
    [
        f'{HEAD} width="9" height="9">' + "<g>" * 100_000 + "</g>" * 100_000 + "</svg>",
        f'{HEAD} width="9" height="9">'
        + "".join(f'<g id="a{i}"><use xlink:href="#a{i + 1}"/></g>' for i in range(5000))
        + '<rect id="a5000" width="5" height="5"/></svg>',
        '<!DOCTYPE svg [<!ENTITY a "aaaaaaaaaa">'
        + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
        + f']>{HEAD} width="9" height="9"><text>&j;</text></svg>',
    ],
    ids=["depth", "references", "entities"],
)
def test_bombs_cost_one_picture_and_not_the_run(bomb):
    with pytest.raises(SvgError):
        render(bomb.encode(), 64)
    assert _picture(SQUARE).size == (64, 32)


@pytest.mark.parametrize(
    "reference", ["other.png", "{folder}/other.png", "file://{folder}/other.png", "http://x.test/a"]
)
def test_references_to_files_are_refused(reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "other.png").write_bytes(png(1))
    monkeypatch.chdir(tmp_path)
    href = reference.format(folder=tmp_path)
    with pytest.raises(SvgError, match="refers to another file"):
        render(f'{HEAD} width="9" height="9"><image width="9" height="9" xlink:href="{href}"/></svg>'.encode(), 64)


def test_a_picture_inside_is_drawn():
    import base64

    from tests.data.drawings import encoded

    blue = base64.b64encode(encoded(Image.new("RGB", (4, 4), "blue"))).decode()
    href = f"data:image/png;base64,{blue}"
    picture = _picture(f'{HEAD} width="9" height="9"><image width="9" height="9" xlink:href="{href}"/></svg>')
    assert picture.getpixel((30, 30)) == (0, 0, 255, 255)


def test_a_hanging_renderer_is_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flame_core.data.svg._SECONDS", 0.0)
    renderer = Renderer()
    with pytest.raises(SvgError, match="too much time"):
        renderer.render(SQUARE.encode(), 64)
    monkeypatch.setattr("flame_core.data.svg._SECONDS", 60.0)
    assert renderer.render(SQUARE.encode(), 64)
    renderer.close()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'<?xml version="1.0"?><!-- x --><svg xmlns="a">', True),
        (b"\xef\xbb\xbf \n<svg>", True),
        (b"<ns:svg >", True),
        (b"<html><body>", False),
        (b"svg <svg>", False),
        (png(1), False),
        (b"", False),
    ],
)
def test_what_looks_like_an_svg(content, expected):
    assert is_svg(content) is expected
