"""A project whose drawings have captions in two languages and a short one, and a tiny LLM that learns to embed them."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from flame_core.captions.table import Caption, read_captions, write_captions
from flame_core.layout import Layout
from flame_core.params import AdaptLLMParams, Params
from flame_core.verification import write_digests
from tests.stages.pipeline import captioned_project

CHOSEN = {
    "languages": ["de"],
    "lora": {"rank": 4, "alpha": 8.0, "targets": ["q_proj", "v_proj", "down_proj"]},
    "steps": 6,
    "batch_size": 6,
    "learning_rate": 1e-2,
    "warmup_steps": 1,
    "held_out": 0.3,
}
GERMAN = "Zeichnung mit der Nummer {}"


def adapted_world(root: Path, tokenizer: PreTrainedTokenizerBase, pictures: int = 40) -> tuple[Params, Layout]:
    """Params with a section `adapt_llm`, and all that its stage reads."""
    params, layout = captioned_project(root, tokenizer, pictures)
    for path in layout.captions.rglob("*.parquet"):
        rows = []
        for caption in read_captions(path):
            rows.append(caption)
            if caption.kind == "raw":
                text = GERMAN.format(caption.text.split()[-1])
                rows.append(Caption(caption.row, caption.key, "raw", text, "de", "made"))
        write_captions(path, rows)
    write_digests(layout.captions)
    evaluate = params.evaluate.model_copy(update={"languages": ["de"], "recall_at": [1, 3]})
    return choosing(params.model_copy(update={"evaluate": evaluate})), layout


def choosing(params: Params, **values) -> Params:
    """The params with other values of the section."""
    return params.model_copy(update={"adapt_llm": AdaptLLMParams.model_validate(CHOSEN | values)})
