"""`kind: urls` in `sources`: lists of addresses of pictures, fetched from the web."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from flame_core.names import LanguageCode
from flame_core.params.section import Fraction, Positive, Section

OF_ALL_PAIRS = "of all its pairs, if it is a part of a data set; null: by their field `split`, or by their captions"
NAMELESS = 10_000  # addresses that may be asked without `contact`
Seconds = Annotated[float, Field(gt=0, le=3600)]


def _allowed(value: str) -> str:
    """`value`, if it is a network and a port: 127.0.0.1/32:8899 or [fd00::/8]:8080."""
    network, _, port = value.rpartition(":")
    try:
        ipaddress.ip_network(network.strip("[]"))
    except ValueError as error:
        raise ValueError(f"write a network and a port, such as 10.0.0.0/8:8080 or [fd00::/8]:443 ({error})") from None
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("write a network and a port, such as 10.0.0.0/8:8080 or [fd00::/8]:443")
    return value


class UrlTimeouts(Section):
    """Seconds after which a request is given up."""

    connect: Seconds = Field(default=5.0, description="until a host answers at all")
    read: Seconds = Field(default=10.0, description="without a byte")
    total: Seconds = Field(default=30.0, description="for the whole answer, so that a dripping server ends too")


class OptOutParams(Section):
    """Which requests not to be used are kept."""

    headers: bool = Field(default=True, description="X-Robots-Tag and tdm-reservation of the answer")
    robots_txt: bool = Field(default=True, description="robots.txt of each host, by RFC 9309, for `flame-mlops`")
    lists: list[str] = Field(
        default=[], description="text files with an address, a host, a sha256 or a pHash (p:<16 hex digits>) per line"
    )


class UrlsSource(Section):
    """A list of addresses with captions, as CC3M, CC12M, LAION and DataComp have it; the pictures are fetched."""

    kind: Literal["urls"]
    path: str = Field(
        description="the list, or a folder of lists: .csv, .tsv, .parquet, .jsonl or .json, each also with .gz"
    )
    columns: list[str] | None = Field(
        default=None, description="names of the columns of a delimited text without a header, such as [caption, url]"
    )
    url_column: str = Field(default="url", description="column with the picture's address")
    caption_column: str = Field(default="caption", description="a text, a list of texts, or {language: texts}")
    language: LanguageCode = Field(default="en", description="language of captions that do not name one")
    licence: str | None = Field(default=None, description="of all pictures; it is stored with each sample")
    licence_column: str | None = Field(
        default=None, description="column with each picture's licence, in place of `licence`"
    )
    sha256_column: str | None = Field(default=None, description="of the picture's bytes when the list was made")
    md5_column: str | None = Field(default=None, description="of the picture's bytes when the list was made")
    split: Literal["train", "val"] | None = Field(default=None, description=OF_ALL_PAIRS)
    changed: Literal["drop", "keep"] = Field(default="drop", description="pictures whose digest is another one now")
    keep_columns: list[str] = Field(
        default=[], description="columns for `ingest.filters`, such as scores, and for a `captioner: column`"
    )
    max_samples: Positive | None = Field(
        default=None, description="only so many addresses, chosen by their hash: always the same ones, whatever follows"
    )
    max_side: Positive | None = Field(
        default=512, description="longer side of the stored picture; null: bytes are stored as they came"
    )
    max_bytes: Positive = Field(default=20_000_000, description="reading stops at so many bytes")
    max_pixels: Positive = Field(default=100_000_000, description="a larger picture is refused before it is decoded")
    min_side: Positive | None = Field(default=None, description="a picture with a shorter side is not stored")
    max_aspect: float | None = Field(default=None, ge=1, description="nor one that is so many times longer than wide")
    connections: Positive = Field(default=64, description="requests in flight per process (FLAME_WORKERS)")
    per_host: Positive = Field(default=2, le=64, description="requests in flight per host, of all processes together")
    timeout_s: UrlTimeouts = UrlTimeouts()
    tries: Positive = Field(default=3, le=10, description="of failures that may pass, before the last pass at the end")
    contact: str | None = Field(
        default=None,
        pattern=r"^[\x21-\x7e]{3,200}$",
        description="address or page that stands in the user agent; required above 10,000 addresses",
    )
    opt_out: OptOutParams = OptOutParams()
    allow: list[Annotated[str, AfterValidator(_allowed)]] = Field(
        default=[], description="addresses of one's own network that may be asked: 10.0.0.0/8:8080"
    )
    min_success: Fraction = Field(default=0.5, description="a smaller share of good addresses fails a check")

    @property
    def needed_columns(self) -> tuple[str, ...]:
        """Those that a list must have."""
        others = (self.licence_column, self.sha256_column, self.md5_column, *self.keep_columns)
        return tuple(dict.fromkeys((self.url_column, self.caption_column, *filter(None, others))))
