"""select: codes of the training pictures -> `data/selections/`: lists of keys that recipes name as their `selection`.

    flame select

Only if params have a section `select`. The folder holds

    <name>.parquet           a selection: key, cluster, rank in the cluster, weight
    train/00000.parquet      all samples of a shard: key, cluster, cosine with its centroid
    centroids.safetensors    `selections/groups.py`
    selections.json          how many samples, and how evenly they are spread
    selections.html          the same for readers, with pictures
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from flame_core import gates
from flame_core.captions.table import captions_at
from flame_core.clustering.sources import require_dims
from flame_core.codes.code_files import code_file, keys_below
from flame_core.codes.codebook import read_codebook
from flame_core.codes.drift import Drift, drift
from flame_core.codes.inequality import gini, perplexity
from flame_core.data.contact_sheet import sheet_of
from flame_core.data.shards import INDEX, Index, PictureReader, read_index
from flame_core.digest import json_bytes
from flame_core.errors import InputError, ParamsError
from flame_core.files.parquet_bytes import parquet_bytes
from flame_core.graph.section_stages import linked_place
from flame_core.layout import Layout
from flame_core.pages.charts import line_chart, standalone
from flame_core.pages.selections import Groups, Row, nearest_samples, selections_page
from flame_core.params import Params, SelectParams
from flame_core.reporting import facts, picture
from flame_core.selections.caption_collapse import caption_cosines, shards_to_read
from flame_core.selections.coded_samples import Samples
from flame_core.selections.filters import kept, read_scores
from flame_core.selections.groups import CENTROIDS, Grouped, find_groups, make_groups, read_centres
from flame_core.selections.select_checks import select_checks
from flame_core.selections.selecting import Selected, require_budgets, select_all, selection_file
from flame_core.selections.word_shares import Counts, WordShares, count_concepts, count_words, word_shares
from flame_core.text.manifest import MANIFEST, read_manifest
from flame_core.verification import DIGESTS, verify
from flame_core.work import WorkCache, gather

STAGE = "select"
PAGE, ABOUT = "selections.html", "selections.json"
_LINES, _COLUMNS = 10, 8  # of the sheet of pictures in Dagster


def run(params: Params, layout: Layout) -> None:
    """Select what the section `select` says, or continue."""
    chosen = params.select
    if chosen is None:
        raise ParamsError(f"{layout.params} has no section `select`: write one, with `clusters` and `selections`")
    counted = [layout.concepts] if chosen.counted == "concepts" else []
    for source in (layout.shards, layout.captions, layout.codes, layout.train_embeddings, *counted):
        gates.require(source)
    index = read_index(layout.shards, "train")
    require_budgets(chosen.selections, len(index))
    read = shards_to_read(index.shard_sizes())
    vectors = [Path(shard).with_suffix(".safetensors").name for shard in read]
    frozen = None if chosen.frozen is None else linked_place(layout, chosen.frozen)
    verified = verify(
        {
            layout.shards: [INDEX, "train/*"],
            layout.captions: ["train/*"],
            layout.codes: ["*"],
            layout.train_embeddings: [MANIFEST, *vectors],
            **{folder: ["*"] for folder in (*counted, *_earlier(chosen, layout, frozen))},
        }
    )
    book = read_codebook(layout.codes)
    data = Samples(layout, index, book, params.evaluate.train_language, chosen.descriptor)
    grouped, drifted = _grouped(chosen, data, frozen)
    groups, cosines = grouped.joined()
    clusters = len(grouped.centres.centroids)
    selected = select_all(chosen.selections, data.keys, groups, clusters, _allowed(chosen, data))
    sizes = np.bincount(groups, minlength=clusters)
    everywhere, within = _counted(chosen, data, selected)
    words = word_shares(everywhere, within, {each.name: each.budget / len(index) for each in selected})
    rows = [
        _row("all", "", np.arange(len(index)), sizes, 1.0, data),
        *(
            _row(
                each.name, each.params.mode, each.picked.places, each.counts, _left(within[each.name], everywhere), data
            )
            for each in selected
        ),
    ]
    names = read_manifest(layout.train_embeddings)["facets"]
    captions = caption_cosines([layout.train_embeddings / name for name in vectors], names)
    checks = select_checks(sizes, selected, captions, drifted, chosen)
    counts = {each.name: each.counts for each in selected}
    found = Groups(groups, cosines, sizes, counts)
    page = _page(rows, found, words, chosen.counted, captions, selected, data)
    about = {
        "index": index.digest(),
        "codebook": book.digest,
        **({} if chosen.descriptor == "histogram" else {"descriptor": chosen.descriptor}),
        "cosine": float(_read_about(frozen)["cosine"]) if frozen else float(cosines.mean(dtype=np.float64)),
        "selections": {row.name: {**vars(row), "budget": row.samples} for row in rows},
    }
    contents = {f"{each.name}.parquet": selection_file(each, data.keys) for each in selected}
    contents |= {code_file(shard): _assigned(shard, grouped, own) for shard, own in data.rows.by_shard().items()}
    contents |= {CENTROIDS: grouped.centres.to_bytes(), ABOUT: json_bytes(about), PAGE: page.encode()}
    gather(layout.selections, layout.state, {}, {**contents, gates.CHECKS: gates.to_bytes(checks)})
    facts(
        STAGE,
        {
            "samples": len(index),
            "clusters": f"{clusters:,}, {(sizes == 0).sum():,} empty, largest {sizes.max():,}",
            "mean cosine to the centroid": float(cosines.mean(dtype=np.float64)),
            **{
                row.name: f"{row.samples:,} ({row.share:.1%}), Gini {row.gini:.3f}, perplexity {row.perplexity:.1f}, "
                f"{row.words:.1%} of the {chosen.counted}"
                for row in rows[1:]
            },
            **({"farther than then": f"{drifted.share:+.1%} of {drifted.samples:,} new samples"} if drifted else {}),
            "page": layout.selections / PAGE,
            "verified": verified,
        },
    )
    gates.warn(checks)
    _show_pictures(found, data)


def _earlier(chosen: SelectParams, layout: Layout, frozen: Path | None) -> list[Path]:
    """The folders of other runs that are read, as far as they say what their files' digests are."""
    return [
        folder
        for folder in (*filter(None, [frozen]), *_scores(chosen, layout).values())
        if (folder / DIGESTS).is_file()
    ]


def _show_pictures(found: Groups, data: Samples) -> None:
    """How many samples each cluster has, and some of their pictures."""
    ordered = np.sort(found.sizes)[::-1]
    picture(
        "sizes",
        lambda: standalone(line_chart(range(len(ordered)), ordered.tolist(), "Samples per cluster", "cluster by size")),
        "svg+xml",
    )
    picture("pictures nearest to the centroids of some clusters", lambda: _sheet(found, data), "jpeg")


def _sheet(found: Groups, data: Samples) -> bytes:
    """A line of pictures per cluster."""
    near = list(nearest_samples(found, _LINES, _COLUMNS).values())
    lines = [each for each in near if len(each) == _COLUMNS] or near[:1]
    samples = [sample for each in lines for sample in each]
    rows, reader = data.index_rows(samples), PictureReader(data.layout.shards)
    return sheet_of([reader.jpeg(rows[sample]) for sample in samples], _COLUMNS)


def _grouped(chosen: SelectParams, data: Samples, frozen: Path | None) -> tuple[Grouped, Drift | None]:
    """Clusters, made or frozen, and how far new samples have drifted from frozen ones.

    Raises:
        InputError: there are fewer samples than clusters, or what is frozen is of another codebook.
    """
    cache = WorkCache(data.layout.work, STAGE)
    if frozen is None:
        if len(data.index) < chosen.clusters:
            raise InputError(
                f"select.clusters is {chosen.clusters}, and the training split has {len(data.index)} samples: lower it"
            )
        require_dims("select.dims", chosen.dims, data.source, min(len(data.index), chosen.fit_samples))
        return make_groups(chosen, data.source, data.index, cache), None
    centres, about = read_centres(frozen), _read_about(frozen)
    if about["codebook"] != data.book.digest:
        raise InputError(
            f"{frozen} holds clusters of another codebook than {data.layout.codes}: freeze that codebook as well "
            "(codes.frozen), or remove select.frozen to make new clusters"
        )
    if (theirs := about.get("descriptor", "histogram")) != chosen.descriptor:
        raise InputError(
            f"{frozen} holds clusters of the descriptor {theirs}, and select.descriptor is {chosen.descriptor}: write "
            f"{theirs}, or remove select.frozen to make new clusters"
        )
    found = find_groups(centres, data.source, data.index, cache)
    return found, drift(data.keys, found.joined()[1], keys_below(frozen), float(about["cosine"]))


def _scores(chosen: SelectParams, layout: Layout) -> dict[str, Path]:
    """{selection: folder of the scores that filter it}."""
    filters = {name: each.filter for name, each in chosen.selections.items() if each.filter}
    return {name: linked_place(layout, each.scores) for name, each in filters.items()}


def _allowed(chosen: SelectParams, data: Samples) -> dict[str, np.ndarray]:
    """{selection: whether it may hold each sample} of those with a filter."""
    folders = _scores(chosen, data.layout)
    scores = {folder: read_scores(folder, data.index, data.rows) for folder in set(folders.values())}
    shares = {name: each.filter.keep for name, each in chosen.selections.items() if each.filter}
    return {name: kept(scores[folders[name]], keep, data.keys) for name, keep in shares.items()}


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / ABOUT
    try:
        found = json.loads(path.read_text("utf-8"))
        if not {"codebook", "cosine"} <= found.keys():
            raise ValueError("it says too little")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} cannot be read ({error}); name a folder that `flame select` made") from None
    return found


def _counted(chosen: SelectParams, data: Samples, selected: Sequence[Selected]) -> Counts:
    """Samples with each word of the captions, or with each concept."""
    if chosen.counted == "words":
        return count_words(data.layout.captions / "train", data.language, data.keys_of(selected))
    holds = {each.name: np.isin(np.arange(len(data.keys)), each.picked.places) for each in selected}
    return count_concepts(data.layout.concepts, data.places, holds)


def _row(name: str, mode: str, places: np.ndarray, counts: np.ndarray, words: float, data: Samples) -> Row:
    return Row(
        name=name,
        mode=mode,
        samples=len(places),
        share=len(places) / len(data.keys),
        gini=gini(counts),
        perplexity=perplexity(data.code_counts(places)),
        clusters=int((counts > 0).sum()),
        words=words,
    )


def _left(within: Mapping[str, int], everywhere: Mapping[str, int]) -> float:
    return len(within) / max(len(everywhere), 1)


def _assigned(shard: str, grouped: Grouped, rows: Index) -> bytes:
    """train/00000.parquet: the group of every sample of a shard."""
    columns = {
        "key": pa.array(rows.keys(), pa.string()),
        "cluster": pa.array(grouped.groups[shard], pa.int32()),
        "cosine": pa.array(grouped.cosines[shard], pa.float32()),
    }
    return parquet_bytes(pa.table(columns))


def _page(
    rows: Sequence[Row],
    found: Groups,
    words: WordShares,
    what: str,
    captions: Mapping[str, float],
    selected: Sequence[Selected],
    data: Samples,
) -> str:
    reader, kept = PictureReader(data.layout.shards), {}
    chosen = set(selected[0].picked.places.tolist())
    usual = (data.codes + 1) / (data.codes.sum() + len(data.codes))

    def caption(samples: Sequence[int]) -> dict[int, str]:
        own = data.index_rows(samples)
        kept.update(own)
        places = {(row.shard, row.row): sample for sample, row in own.items()}
        texts = captions_at(places, data.layout.captions, "raw", data.language)
        return {places[place]: text for place, text in texts.items()}

    def codes(samples: Sequence[int]) -> list[str]:
        if not data.book.words:
            return []
        own = data.code_counts(np.array(samples))
        over = own / max(own.sum(), 1) / usual
        best = np.lexsort((np.arange(len(own)), -over, -np.minimum(own, 3)))[:5]
        return [data.book.words[code] for code in best if own[code]]

    return selections_page(
        rows,
        found,
        words,
        what,
        captions,
        lambda sample: reader.jpeg(kept[sample]),
        caption,
        codes,
        chosen.__contains__,
    )
