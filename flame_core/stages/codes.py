"""codes: shards and a tower -> `data/codes/`: the codes of every training picture's patches, and the codebook.

    flame codes

Only if params have a section `codes`. The folder holds `train/00000.parquet` (`codes/code_files.py`),
`codebook.safetensors` and `codebook.json` (`codes/codebook.py`), `manifest.json` and `codes.html`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flame_core import gates
from flame_core.codes.code_files import CODES, Coded, code_file, keys_below, read_codes
from flame_core.codes.codebook import ABOUT, CODEBOOK, Codebook, read_codebook
from flame_core.codes.coding import Coding
from flame_core.codes.drift import Drift, drift
from flame_core.codes.inequality import perplexity
from flame_core.data.shards import INDEX, Index, PictureReader, read_index
from flame_core.data.sidecars import gather_sidecar
from flame_core.digest import file_sha256, json_bytes
from flame_core.errors import InputError, ParamsError
from flame_core.graph.section_stages import linked_place
from flame_core.layout import Layout
from flame_core.measuring.image_vectors import require_stored_facets
from flame_core.model_files import CONFIG
from flame_core.pages.charts import line_chart, standalone
from flame_core.pages.codes import PICTURES, CodesFound, codes_page
from flame_core.params import CodesParams, Params
from flame_core.reporting import facts, picture
from flame_core.selections.picking import hash_numbers
from flame_core.settings import settings
from flame_core.text.manifest import MANIFEST as TEXTS
from flame_core.text.store import CENTER, TrainStore
from flame_core.verification import DIGESTS, Verified, read_digests, read_object, verify
from flame_core.vq.codebook import Captioned
from flame_core.work import Unit, WorkCache, gather

STAGE = "codes"
PAGE, MANIFEST = "codes.html", "manifest.json"


def run(params: Params, layout: Layout) -> None:
    """Code the pictures as the section `codes` says, or continue."""
    from flame_core.codes.coding_tower import open_tower

    chosen = params.codes
    if chosen is None:
        raise ParamsError(f"{layout.params} has no section `codes`: write `codes: {{tower: {{recipe: flame}}}}`")
    frozen = None if chosen.frozen is None else linked_place(layout, chosen.frozen)
    verified = _verify_inputs(params, chosen, layout, frozen)
    index = read_index(layout.shards, "train")
    given = None if frozen is None else read_codebook(frozen)
    tower = open_tower(chosen, layout, settings().torch_device())
    if given is not None:
        _require_same_tower(given, tower.identity, frozen or Path(), tower.name)
    digests = read_digests(layout.shards)
    coding = Coding(chosen, tower, index, layout.shards, digests, WorkCache(layout.work, STAGE))
    captioned = _captioned(coding, params, layout) if chosen.codebook == "vq" and given is None else None
    book = given or (captioned.codebook if captioned else _made(coding, chosen, params, layout))
    repeated = coding.repeated(book)
    units = coding.codes(book)
    if chosen.similarity:
        _store_similarity(coding, layout)
    read = _read(units, len(book))
    patches, cosine = read.patches, float(read.cosine.mean(dtype=np.float64))
    drifted = None
    if given is None:
        of_kmeans, of_all = {"batch_tokens", "steps"}, {"codebook", "dims", "fit_tokens", "seed"}
        origin = chosen.model_dump(mode="json", include=of_all | ({"vq"} if captioned else of_kmeans))
        book = replace(book, about={**book.about, "tokens": patches, "cosine": cosine, "origin": origin})
    else:
        drifted = drift(read.keys, read.cosine, keys_below(frozen or Path()), float(given.about["cosine"]))
    made = str(book.about.get("origin", {}).get("codebook", chosen.codebook))
    found = CodesFound(read.counts, book.words, len(index), perplexity(read.counts), cosine, tower.name, made)
    checks = codes_checks(found, repeated, drifted, chosen)
    if captioned:
        checks.append(_caption_check(captioned.gain, chosen))
    page = _page(found, units, index, layout)
    manifest = {"index": index.digest(), "codebook": book.digest, "codes": len(book), "patches": patches}
    contents = {CODEBOOK: book.to_bytes(), ABOUT: json_bytes(book.about), MANIFEST: json_bytes(manifest)}
    contents |= {PAGE: page.encode(), gates.CHECKS: gates.to_bytes(checks)}
    files = {code_file(shard): unit.file(CODES) for shard, unit in units.items()}
    known = {code_file(shard): unit.sha256[CODES] for shard, unit in units.items()}
    gather(layout.codes, layout.state, files, contents, known)
    facts(
        STAGE,
        {
            "pictures": len(index),
            "codes": f"{len(book):,} from {'an earlier run' if given else made}, {patches} per picture",
            "tower": tower.name,
            "perplexity": found.perplexity,
            "codes without a patch": len(found.dead),
            "mean cosine to the code": cosine,
            **(_told(captioned) if captioned else {}),
            **({"farther than then": f"{drifted.share:+.1%} of {drifted.samples:,} new pictures"} if drifted else {}),
            "page": layout.codes / PAGE,
            "verified": verified,
        },
    )
    gates.warn(checks)
    _show_charts(read.counts, captioned)


def _show_charts(counts: np.ndarray, captioned: Captioned | None) -> None:
    """How often each code is used, and the loss of a codebook that learned from captions."""
    sizes = np.sort(counts)[::-1]
    picture(
        "use",
        lambda: standalone(line_chart(range(len(sizes)), sizes.tolist(), "Patches per code", "codes by use")),
        "svg+xml",
    )
    if captioned:
        losses = captioned.losses
        picture("loss", lambda: standalone(line_chart(range(len(losses)), losses, "Nats per word", "step")), "svg+xml")


def _verify_inputs(params: Params, chosen: CodesParams, layout: Layout, frozen: Path | None) -> Verified:
    """Check the gates of what is read and the digests of its files; `frozen` is the folder of an earlier codebook."""
    from flame_core.codes.coding_tower import to_verify, tower_folder

    gates.require(layout.shards)
    wanted = {layout.shards: [INDEX, "train/*"], **to_verify(tower_folder(chosen, layout))}
    if frozen is not None and (frozen / DIGESTS).is_file():
        wanted[frozen] = ["*"]
    if chosen.codebook != "kmeans" and frozen is None:
        gates.require(layout.captions)
        wanted[layout.captions] = ["train/*"]
    if chosen.codebook == "words" and frozen is None:
        wanted[layout.llm] = [f"{params.llm.name}/*"]
    if chosen.similarity:
        gates.require(layout.train_embeddings)
        wanted[layout.train_embeddings] = ["[0-9]*", TEXTS, CENTER]
    return verify(wanted)


def _captioned(coding: Coding, params: Params, layout: Layout) -> Captioned:
    from flame_core.vq.codebook import captioned_codebook

    digests = read_digests(layout.captions)
    language, device = params.evaluate.train_language, settings().torch_device()
    return captioned_codebook(coding, layout.captions, digests, language, device)


def _told(captioned: Captioned) -> dict[str, str]:
    return {
        "caption loss, first / last step": f"{captioned.losses[0]:.3f} / {captioned.losses[-1]:.3f} nats per word",
        "held-out captions, own / other codes": f"{captioned.own:.3f} / {captioned.other:.3f} nats per word",
    }


def _caption_check(gain: float, chosen: CodesParams) -> gates.Check:
    return gates.Check(
        "codes_describe",
        gain > chosen.gates.min_caption_gain,
        "nats per word by which held-out captions are likelier behind the codes of their own pictures",
        value=gain,
        threshold=chosen.gates.min_caption_gain,
        blocking=False,
    )


def _store_similarity(coding: Coding, layout: Layout) -> None:
    from flame_core.codes.caption_similarity import NAME, similarities
    from flame_core.codes.patch_tokens import TrainedTower

    tower, store = coding.tower, TrainStore(layout.embeddings)
    assert isinstance(tower, TrainedTower)  # params refuse others
    require_stored_facets(read_object(tower.folder, CONFIG), store.manifest, tower.folder, "codes.similarity")
    digests = {"shards": coding.sha256, "texts": read_digests(layout.train_embeddings)}
    units = similarities(tower, store, coding.index, layout.shards, digests, coding.cache)
    origin = {"tower": tower.identity, "embeddings": file_sha256(layout.train_embeddings / TEXTS)}
    gather_sidecar(layout.data / "sidecars" / NAME, layout.state, units, coding.index, STAGE, origin)


def _made(coding: Coding, chosen: CodesParams, params: Params, layout: Layout) -> Codebook:
    if chosen.codebook == "kmeans":
        return coding.fitted()
    from flame_core.codes.llm_words import read_words, require_same_llm

    require_same_llm(coding.tower, params.llm)
    found = read_words(params, layout, chosen.codes)
    return coding.of_words(found.words, found.vectors)


def _require_same_tower(book: Codebook, identity: Mapping[str, object], frozen: Path, name: str) -> None:
    theirs = book.about["tower"]
    if theirs == identity:
        return
    wrong = [
        f"  {key}: the codebook has {theirs.get(key)!r}, the tower {identity.get(key)!r}"
        for key in sorted(theirs.keys() | identity.keys())
        if theirs.get(key) != identity.get(key)
    ]
    raise InputError(
        f"{frozen} holds a codebook of another tower than {name}, whose tokens mean something else; name the tower it "
        "was made for, or remove codes.frozen to make a new one:\n" + "\n".join(wrong)
    )


@dataclass(frozen=True)
class _Read:
    """What was read of all pictures: keys, mean cosines [n], and counts [K] of patches by code; `patches` is L."""

    keys: list[str]
    cosine: np.ndarray
    counts: np.ndarray
    patches: int


def _read(units: Mapping[str, Unit], codes: int) -> _Read:
    keys: list[str] = []
    cosines, counts, patches = [], np.zeros(codes, np.int64), 0
    for unit in units.values():
        own: Coded = read_codes(unit.file(CODES))
        keys += own.keys
        cosines.append(own.cosine)
        counts += np.bincount(own.codes.ravel(), minlength=codes)
        patches = own.codes.shape[1]
    return _Read(keys, np.concatenate(cosines), counts, patches)


def _page(found: CodesFound, units: Mapping[str, Unit], index: Index, layout: Layout) -> str:
    """The page, with patches of those pictures whose keys have the lowest hashes."""
    keys = index.table.column("key").to_pylist()
    shown = [index[int(place)] for place in np.sort(np.argsort(hash_numbers(keys, 0), kind="stable")[:PICTURES])]
    by_shard = {shard: read_codes(units[shard].file(CODES)) for shard in sorted({row.shard for row in shown})}
    reader = PictureReader(layout.shards)
    codes = np.stack([by_shard[row.shard].codes[row.row] for row in shown])
    return codes_page(found, codes, lambda number: reader.jpeg(shown[number]))


def codes_checks(found: CodesFound, repeated: float, drifted: Drift | None, chosen: CodesParams) -> list[gates.Check]:
    """Checks of a codebook and its use."""
    limits, count = chosen.gates, len(found.counts)
    used, dead = found.perplexity / count, found.dead
    checks = [
        gates.Check(
            "codes_used",
            used >= limits.min_perplexity,
            "perplexity of the codes' usage over their number",
            value=used,
            threshold=limits.min_perplexity,
        ),
        gates.Check(
            "codes_alive",
            len(dead) / count <= limits.max_dead_fraction,
            "share of codes that no patch has",
            value=len(dead) / count,
            threshold=limits.max_dead_fraction,
            keys=dead[:20],
        ),
        gates.Check(
            "codes_repeatable",
            repeated == 1.0,
            "share of patches with the same code when the first pictures are coded twice",
            value=repeated,
            threshold=1.0,
        ),
    ]
    if drifted is not None:
        checks.append(
            gates.Check(
                "codes_steady",
                drifted.share <= limits.max_drift,
                f"how much farther the patches of {drifted.samples} new pictures lie from their codes",
                value=drifted.share,
                threshold=limits.max_drift,
                blocking=False,
            )
        )
    return checks
