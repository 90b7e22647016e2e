from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from flame_core.data.svg import Renderer, SvgError, is_svg, render
from tests.data.drawings import png

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
SQUARE = f'{HEAD} viewBox="0 0 100 50"><rect width="50" height="50" fill="#ff0000"/></svg>'


def _document(entities: str, text: str) -> str:
    return f'<!DOCTYPE svg [{entities}]>{HEAD} width="9" height="9"><text>{text}</text></svg>'


def _entities(levels: int) -> str:
    """Each entity is ten of the one before: ten to the power of `levels` in all."""
    letters = "abcdefghij"
    grown = "".join(f'<!ENTITY {letters[i + 1]} "{f"&{letters[i]};" * 10}">' for i in range(levels))
    return _document('<!ENTITY a "aaaaaaaaaa">' + grown, f"&{letters[levels]};")


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
    ("bomb", "reason"),
    [
        (f'{HEAD} width="9" height="9">' + "<g>" * 100_000 + "</g>" * 100_000 + "</svg>", "image_too_costly"),
        (
            f'{HEAD} width="9" height="9">'
            + "".join(f'<g id="a{i}"><use xlink:href="#a{i + 1}"/></g>' for i in range(5000))
            + '<rect id="a5000" width="5" height="5"/></svg>',
            "image_too_costly",
        ),
        (
            f'{HEAD} width="9" height="9"><g id="a0"><rect width="1" height="1"/></g>'
            + "".join(f'<g id="a{i + 1}">' + f'<use xlink:href="#a{i}"/>' * 10 + "</g>" for i in range(9))
            + "</svg>",
            "image_too_costly",
        ),
        (_entities(9), "image_entity_bomb"),
        (_entities(5), "image_entity_bomb"),
        (_document('<!ENTITY a "&b;"><!ENTITY b "&a;">', "&a;"), "image_entity_bomb"),
        (_document(f'<!ENTITY a "{"a" * 100_000}">', "&a;" * 20_000), "image_entity_bomb"),
    ],
    ids=["depth", "references", "copies", "entities", "fewer entities", "loop", "long entity"],
)
def test_bombs_cost_one_picture_and_not_the_run(bomb, reason):
    with pytest.raises(SvgError) as error:
        render(bomb.encode(), 64)
    assert error.value.reason == reason
    assert _picture(SQUARE).size == (64, 32)


def test_entities_for_names_are_read():
    text = SQUARE.replace("http://www.w3.org/2000/svg", "&ns;", 1)
    assert _picture('<!DOCTYPE svg [<!ENTITY ns "http://www.w3.org/2000/svg">]>' + text).size == (64, 32)


def test_an_entity_in_another_file_is_refused():
    with pytest.raises(SvgError, match="refers to another file: file:///etc/hostname") as error:
        render(_document('<!ENTITY a SYSTEM "file:///etc/hostname">', "&a;").encode(), 64)
    assert error.value.reason == "image_external_reference"


@pytest.mark.parametrize(
    "size", ['viewBox="0 0 1e30 1e30"', 'viewBox="0 0 1e9 1"', 'width="1e9" height="1e9"', 'width="1e9in" height="1in"']
)
def test_the_size_that_a_picture_claims_costs_nothing(size):
    assert max(_picture(f'{HEAD} {size}><rect width="5" height="5"/></svg>').size) == 64


def test_a_filter_without_end_is_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flame_core.data.svg._SECONDS", 2.0)
    noise = '<filter id="f"><feTurbulence baseFrequency="0.1" numOctaves="100000000"/></filter>'
    renderer = Renderer()
    with pytest.raises(SvgError, match="too much time") as error:
        renderer.render(
            f'{HEAD} width="9" height="9">{noise}<rect width="9" height="9" filter="url(#f)"/></svg>'.encode(), 64
        )
    assert error.value.reason == "image_too_costly"
    renderer.close()


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
