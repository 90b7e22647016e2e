"""The answer to a search as one page with its pictures inside, which fetches nothing."""

from __future__ import annotations

from typing import Any

from flame_core.data.picture_decoding import PictureError
from flame_core.errors import InputError
from flame_core.inline_pictures import thumbnail
from flame_core.model.given_pictures import of_file
from flame_core.model.loaded import Model
from flame_core.pages.render import render
from flame_core.search.ask import Found


def result_page(asked: str, picture: bytes | None, model: Model, found: Found) -> str:
    """The page.

    Args:
        asked: the text, or the path of the picture.
        picture: bytes of the picture that was asked with.
        model: that answered.
        found: the answer.
    """

    def small(content: bytes) -> str:
        return thumbnail(of_file(content, model.ingest))

    hits: list[dict[str, Any]] = []
    for hit in found.hits:
        try:
            source, gone = small(found.gallery.picture(hit.number)), ""
        except (InputError, PictureError) as error:  # the file was changed or removed since the index was made
            source, gone = None, str(error)
        hits.append({"hit": hit, "source": source, "gone": gone})
    return render(
        "search.html.j2",
        asked=asked,
        source=None if picture is None else small(picture),
        model=model.title,
        gallery=found.gallery.title,
        nearness=found.nearness,
        hits=hits,
    )
