"""The README of an exported folder, ready for a hub: metadata, use, preprocessing, texts, lineage, the model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from flame_core.digest import file_sha256
from flame_core.export.about import About
from flame_core.export.preprocessing import mean_and_std
from flame_core.export.subject import Subject
from flame_core.export.usage import Usage
from flame_core.markdown import code_span, plain_text
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.text.llm_adapter import ADAPTER
from flame_core.text.transformer import TrainedTexts

README = "README.md"


def readme(subject: Subject, about: About, usage: Usage) -> str:
    """The README in Markdown, with YAML metadata at its head."""
    parts = [
        f"---\n{yaml.safe_dump(metadata(subject, about, usage), sort_keys=False, allow_unicode=True)}---",
        f"# {subject.recipe}",
        about.summary,
        f"A picture becomes a unit vector of {subject.dim} numbers"
        + (f", and {subject.facets} more for its facets." if subject.facets else "."),
        *_use(usage),
        "## Files\n\n" + "\n".join(f"- `{name}`: {what}" for name, what in usage.files.items()),
        "## Preprocessing\n\n" + "\n".join(f"- {line}" for line in _preprocessing(subject)),
        "## Texts\n\n" + "\n".join(f"- {line}" for line in _texts(subject, usage)),
        *_classes(subject),
        *_tuned(subject),
        "## Lineage\n\n" + _lineage(subject),
        about.body,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def metadata(subject: Subject, about: About, usage: Usage) -> dict[str, Any]:
    """The hub's metadata; only what is known."""
    licence = (
        {"license": about.licence} if about.licence else {"license": "other", "license_name": "not-chosen-by-publisher"}
    )
    found: dict[str, Any] = {
        **licence,
        "library_name": usage.library,
        "pipeline_tag": "image-feature-extraction" if subject.zero_shot is None else "image-classification",
        "tags": ["flame", "vision", "image-embedding", "image-text-retrieval", *_zero_shot_tag(subject)],
    }
    if about.sources:
        found["datasets"] = about.sources
    source = str((subject.config.get("llm") or {}).get("source", ""))
    if source.startswith("hub:") and not subject.has_text_tower:
        found["base_model"] = source.removeprefix("hub:").partition("@")[0]
    if about.scores:
        found["metrics"] = sorted({kind for kind, _, _ in about.scores})
        dataset = {"type": "held-out", "name": f"held-out pictures of {', '.join(about.sources)}"}
        rows = [{"type": kind, "name": name, "value": round(value, 4)} for kind, name, value in about.scores]
        task = {"type": "image-text-retrieval", "name": "Retrieval and zero-shot classes"}
        results = [{"task": task, "dataset": dataset, "metrics": rows}]
        found["model-index"] = [{"name": subject.recipe, "results": results}]
    return found


def _zero_shot_tag(subject: Subject) -> list[str]:
    return [] if subject.zero_shot is None else ["zero-shot-image-classification"]


def _use(usage: Usage) -> Iterator[str]:
    yield "## Use\n\nRun it in the folder of this file, with a picture `bird.jpg` there."
    for title, program in usage.programs.items():
        yield (f"### {title}\n\n" if len(usage.programs) > 1 else "") + f"```python\n{program}```"
    if lines := [*usage.notes, *usage.lacks]:
        yield "\n".join(f"- {line}" for line in lines)


def _preprocessing(subject: Subject) -> Iterator[str]:
    size, ingest = subject.params.image_size, subject.ingest
    moments = "CLIP's mean, divided by its standard deviation"
    if subject.tower.own_pixels:
        mean, std = (", ".join(f"{value:.4g}" for value in each) for each in mean_and_std(subject))
        moments = f"the mean of the backbone's own pixels ({mean}), divided by their standard deviation ({std})"
    yield (
        f"RGB; the central square, resized to {size} x {size} pixels (bicubic, antialiased); divided by 255; minus "
        f"{moments}."
    )
    yield (
        "On equal pixels, vectors agree with those of the training's evaluation to 1e-4. Processors of other libraries "
        "crop whole pixels: if the two sides of a picture differ by an odd number, their square lies half a pixel "
        "beside. That is seen in the vector only of pictures that are about as small as the tower's input."
    )
    yield (
        "Before that, the training's pictures were turned upright, put on white where transparent, and stored as JPEG "
        f"with at most {ingest.max_side} pixels on the longer side."
    )


def _texts(subject: Subject, usage: Usage) -> Iterator[str]:
    llm = subject.config.get("llm") or {}
    if subject.has_text_tower and TrainedTexts.required()[0] in usage.files:
        yield "The text tower that was trained with the images is included; the program above encodes texts with it."
    elif subject.has_text_tower:
        yield (
            "Texts were read by a text tower that was trained with the images. This format does not hold it; "
            "`flame export --format safetensors` does."
        )
    else:
        name = code_span(llm.get("source") or llm.get("name") or "not named")
        yield (
            f"Vectors of texts come from a frozen LLM, {name}, {_adapted(llm)}with the prompts of its project. It is "
            "not included, so this folder encodes no texts."
        )
        yield "What needs no text works without it: similar pictures, features, and classes that were exported."
    if subject.zero_shot is None and subject.tuned is None:
        yield "No classes were exported: `flame export --classes FILE` writes their texts as weights."


def _adapted(llm: Mapping[str, Any]) -> str:
    return "with adapters that learned to embed captions, " if llm.get(ADAPTER) else ""


def _classes(subject: Subject) -> Iterator[str]:
    head = subject.zero_shot
    if head is None:
        return
    lines = [
        f"The texts of {len(head.names)} classes are weights of this model, so classifying needs no LLM. `logits` are "
        "cosines between picture and class; the largest is the answer. They are no probabilities: a softmax needs a "
        "temperature that fits the use."
    ]
    if head.prompts:
        lines.append("Prompts of the first class: " + ", ".join(code_span(prompt) for prompt in head.prompts[:5]))
    names = ", ".join(plain_text(name) for name in head.names[:30])
    more = f" and {len(head.names) - 30} more" if len(head.names) > 30 else ""
    yield "\n\n".join(["## Classes", *lines, f"{names}{more}."])


def _tuned(subject: Subject) -> Iterator[str]:
    head = subject.tuned
    if head is None:
        return
    names = ", ".join(plain_text(name) for name in head.classes[:30])
    more = f" and {len(head.classes) - 30} more" if len(head.classes) > 30 else ""
    about = (
        f"A head that `flame tune` trained on labelled pictures ({code_span(head.config['preset'])}): "
        f"`probabilities` are of its {len(head.classes)} classes. It answers with one of them whatever a picture shows."
    )
    yield "\n\n".join(["## Tuned head", about, f"{names}{more}."])


def _lineage(subject: Subject) -> str:
    config = subject.config
    rows = {
        "exported from": subject.asked,
        f"sha256 of the trained {WEIGHTS}": file_sha256(subject.folder / WEIGHTS),
        f"sha256 of its {CONFIG}": file_sha256(subject.folder / CONFIG),
        **{f"digest of {name}": digest for name, digest in sorted((config.get("data") or {}).items())},
    }
    if digest := (config.get("llm") or {}).get("digest"):
        rows["digest of the LLM"] = digest
    if digest := (config.get("llm") or {}).get(ADAPTER):
        rows["digest of the LLM's adapters"] = digest
    body = "\n".join(f"| {name} | {code_span(value)} |" for name, value in rows.items())
    return f"| what | value |\n|---|---|\n{body}\n\n`digests.json` has the sha256 of every file of this folder."
