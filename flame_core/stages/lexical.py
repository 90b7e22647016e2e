"""lexical: sentence vectors of the training captions -> `data/sidecars/lexical/`: their words, and the lexicon.

    flame lexical

Only if params have a section `lexical`. The folder is a sidecar (docs/sidecars.md) with three more files: the lexicon
(`lexical/lexicon.py`) and `lexical.html`, which shows captions by their words.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from flame_core import gates
from flame_core.captions.table import captions_file, first_captions
from flame_core.data.shards import INDEX, Index, read_index
from flame_core.data.sidecars import VALUES, gather_sidecar
from flame_core.digest import bytes_sha256, file_sha256, text_sha256
from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.lexical.lexicon import Lexicon, lexicon_of
from flame_core.lexical.pipeline import Worded, Wording
from flame_core.lexical.values import unpack
from flame_core.lexical.vocabulary import Vocabulary, read_vocabulary
from flame_core.pages.lexical import WordedCaption, lexical_page
from flame_core.params import LexicalParams, Params
from flame_core.reporting import facts
from flame_core.text.cost import read_shape
from flame_core.text.jobs import chosen_slots
from flame_core.text.llm import load_tokenizer
from flame_core.text.manifest import MANIFEST, require_training_fit, training_folder
from flame_core.text.sentence import SENTENCE
from flame_core.text.store import TrainStore
from flame_core.verification import read_digests, verify
from flame_core.work import WorkCache

STAGE = "lexical"
PAGE = "lexical.html"
_SAMPLES, _HEAVIEST = 100, 50  # captions that are looked at, and their words
_OWN_WORD = re.compile(r"[^\W\d_]{3,}")


def run(params: Params, layout: Layout) -> None:
    """Find the words of all training captions, or continue."""
    chosen = params.lexical
    if chosen is None:
        raise ParamsError(f"{layout.params} has no section `lexical`: write `lexical: {{top: 512}}`")
    llm = layout.llm / params.llm.name
    for source in (layout.shards, layout.captions, layout.train_embeddings):
        gates.require(source)
    sentences = training_folder(layout.train_embeddings, "sentence")
    below = sentences.relative_to(layout.train_embeddings)
    verified = verify(
        {
            layout.shards: [INDEX],
            layout.captions: ["train/*"],
            layout.train_embeddings: [(below / name).as_posix() for name in ("[0-9]*", MANIFEST)],
            layout.llm: [f"{llm.name}/*"],
        }
    )
    _require_last_layer(params, llm)
    store = TrainStore(layout.embeddings)
    require_training_fit(store.manifest_of("sentence"), params, layout, "sentence")
    index = read_index(layout.shards, "train")
    shape = read_shape(params, llm)
    vocabulary = read_vocabulary(load_tokenizer(llm, params.llm), shape.vocabulary, chosen)
    _require_enough(vocabulary, chosen)
    slots = chosen_slots(store.facets, chosen.kinds, "sentence")
    digests = {Path(name): sha256 for name, sha256 in read_digests(layout.train_embeddings).items()}
    own = {path.name: sha256 for path, sha256 in digests.items() if path.parent == below}
    wording = Wording(
        params=chosen,
        lexicon=lexicon_of(llm, vocabulary),
        store=store,
        sha256=own,
        slots=slots,
        index=index,
        cache=WorkCache(layout.work, STAGE),
        name=layout.lexical.name,
    )
    found = wording.run()
    examples = list(_examples(found, index, layout, params))
    checks = lexical_checks(found, examples, chosen)
    beside = found.lexicon.files()
    origin = {
        **chosen.model_dump(mode="json", exclude={"gates"}),
        "reading": SENTENCE,
        "embeddings": file_sha256(sentences / MANIFEST),
        "vocabulary": found.lexicon.vocabulary.digest,
        "lexicon": {name: bytes_sha256(content) for name, content in beside.items()},
    }
    share = found.use / found.captions
    page = lexical_page(examples, [word.text for word in found.lexicon.vocabulary.words], share)
    gather_sidecar(
        layout.lexical, layout.state, found.units, index, STAGE, origin, checks, {**beside, PAGE: page.encode()}
    )
    facts(
        STAGE,
        {
            "captions": found.captions,
            "words": f"{len(found.lexicon.vocabulary):,} of {shape.vocabulary:,} tokens",
            "active per caption": float(found.use.sum() / found.captions),
            "never active": f"{(found.use == 0).sum():,}",
            "most used": ", ".join(_named(found, place) for place in np.argsort(-found.use, kind="stable")[:8]),
            "page": layout.lexical / PAGE,
            "verified": verified,
        },
    )
    gates.warn(checks)


def _require_last_layer(params: Params, llm: Path) -> None:
    """Refuse sentences that are not read after all layers; what else they need, the params say themselves."""
    layers = read_shape(params, llm).layers
    if params.text.sentence_layer != layers:
        raise ParamsError(
            f"lexical: words come from the LLM's last token after all layers; set text.sentence.layer: {layers}"
        )


def _require_enough(vocabulary: Vocabulary, chosen: LexicalParams) -> None:
    if chosen.top > len(vocabulary):
        raise ParamsError(f"lexical.top is {chosen.top}, and lexical.rule leaves {len(vocabulary):,} words: lower it")


def _named(found: Worded, place: int) -> str:
    return f"{found.lexicon.vocabulary.words[place].text} {found.use[place] / found.captions:.0%}"


def _examples(found: Worded, index: Index, layout: Layout, params: Params) -> Iterator[WordedCaption]:
    """Some captions with their heaviest words; those with the smallest digests of their keys."""
    nearest = heapq.nsmallest(_SAMPLES, enumerate(index.keys()), key=lambda each: text_sha256("words " + each[1]))
    rows = [index[number] for number, _ in nearest]
    kind, language = (params.lexical or LexicalParams()).kinds[0], params.evaluate.train_language
    shards = {row.shard for row in rows}
    texts = {shard: first_captions(captions_file(layout.captions, shard), kind, language) for shard in shards}
    words = found.lexicon.vocabulary.words
    values = {
        shard: load_file(found.units[shard].file(f"{layout.lexical.name}.safetensors"))[VALUES] for shard in shards
    }
    for row in rows:
        numbers, weights = unpack(values[row.shard][row.row, 0])
        order = np.argsort(-weights, kind="stable")[:_HEAVIEST]
        heaviest = [(words[numbers[place]].text, float(weights[place])) for place in order]
        if text := texts[row.shard].get(row.row):
            yield WordedCaption(row.key, text, heaviest)


def own_words(caption: str, lexicon: Lexicon) -> set[str]:
    """The words of a caption, of three letters or more in lower case, that the lexicon has."""
    return {word for word in _OWN_WORD.findall(caption.casefold()) if lexicon.vocabulary.places(word)}


def lexical_checks(found: Worded, examples: Sequence[WordedCaption], chosen: LexicalParams) -> list[gates.Check]:
    """Checks of how words are used."""
    share = found.use / found.captions
    often = np.flatnonzero(share > chosen.gates.max_word_share)
    recalls = {}
    for example in examples:
        if own := own_words(example.text, found.lexicon):
            heaviest = {word.casefold() for word, _ in example.words}
            recalls[example.key] = len(own & heaviest) / len(own)
    recall = sum(recalls.values()) / len(recalls) if recalls else 0.0
    return [
        gates.Check(
            "words_overused",
            not len(often),
            "largest share of the captions that one word is active in",
            value=float(share.max()),
            threshold=chosen.gates.max_word_share,
            blocking=False,
            keys=[found.lexicon.vocabulary.words[place].text for place in often[np.argsort(-share[often])][:20]],
        ),
        gates.Check(
            "words_recalled",
            recall >= chosen.gates.min_recall,
            "share of a caption's own words that are among its 50 heaviest",
            value=recall,
            threshold=chosen.gates.min_recall,
            blocking=False,
            keys=sorted(recalls, key=lambda key: recalls[key])[:20],
        ),
    ]
