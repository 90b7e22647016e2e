"""Which reading of a sentence suits an LLM that was not tuned to embed text: its last token, or the mean over them?

    python -m benchmarks.sentence_reading --pairs <flickr8k-train-00000.tar>

Recall of captions among captions, without looking at pictures: a picture's first English caption must find its second
one among those of all pictures, and vice versa. The pictures are training pictures, so the choice does not use anything
that models are measured on later. `benchmarks/clip_baseline.py` uses the better reading.
"""

from __future__ import annotations

import argparse
import json
import tarfile
from pathlib import Path

from benchmarks.measure import record
from flame_core.layout import Layout
from flame_core.measuring.retrieval import Pairing, both_ways
from flame_core.params import Params
from flame_core.params.text import SentenceParams
from flame_core.text.encoder import TextEncoder
from flame_core.text.sentence import SENTENCE
from flame_core.workspace import resolve_params

READINGS = ("last", "mean")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=500)
    options = parser.parse_args()
    layout = Layout.find()
    params = resolve_params(layout, [], None).params
    pairs = caption_pairs(options.pairs, options.pictures)
    for reading in READINGS:
        params = reads(params, reading)
        encoder = TextEncoder.open(params, layout)
        first, second = (encoder.encode(SENTENCE, texts)[:, 0] for texts in zip(*pairs, strict=True))
        pairing = Pairing.of(((i, i) for i in range(len(pairs))), [text for _, text in pairs])
        for direction, found in both_ways(first, second, pairing).items():
            of = "first to second" if direction == "image_to_text" else "second to first"
            record("sentence_reading", f"{reading}, caption {of}", 100 * found.recall(10), "% recall@10")


def caption_pairs(shard: Path, pictures: int) -> list[tuple[str, str]]:
    """The first two English captions of a shard's pictures; no caption is in two pairs."""
    pairs: list[tuple[str, str]] = []
    seen: set[str] = set()
    with tarfile.open(shard) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(".json") else None
            if file is None or len(pairs) == pictures:
                continue
            first, second = json.load(file)["captions"]["en"][:2]
            if first != second and not seen & {first, second}:
                seen |= {first, second}
                pairs.append((first, second))
    return pairs


def reads(params: Params, reading: str) -> Params:
    """The params with this reading of sentences, at the layer of the facets."""
    text = params.text.model_copy(update={"sentence": SentenceParams.model_validate({"read": reading})})
    return params.model_copy(update={"text": text})


if __name__ == "__main__":
    main()
