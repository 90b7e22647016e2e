"""Shared by the captioners that generate text: finding and loading a model, greedy decoding, cleaning the output.

Decoding is greedy and a shard's batches are fixed, so a shard's captions depend only on the shard, the model and the
params. Text written by users never acts as a template or control token: `str.replace` inserts it, and a space breaks
any string that the tokenizer would read as a control token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flame_core.captions.captioner import Failure
from flame_core.captions.subject import fold
from flame_core.data.captions_text import primary_language
from flame_core.digest import file_sha256, value_digest
from flame_core.errors import InputError, ResourceError
from flame_core.layout import Layout
from flame_core.params import RewriteCaptioner, VLMCaptioner
from flame_core.settings import settings

if TYPE_CHECKING:
    import torch

_PROMPT_CHARS = 4000  # of a raw caption that enter a prompt
_ROLE = re.compile(r"^\W{0,3}(?:assistant|model|user|human|system)\b\s*(?::[*_]*|\n|$)\s*", re.I)
_NEXT_ROLE = re.compile(r"\n\s*(?:assistant|user|human|system)\s*:", re.I)
_THINKING = re.compile(r"<think>.*?(?:</think>|$)", re.S)
_QUOTED = re.compile(r"^([\"“'])(.*)([\"”'])$", re.S)
Item = TypeVar("Item")


@dataclass(frozen=True)
class Loaded:
    """A model on its device with its tokenizer or processor."""

    model: Any
    processor: Any  # a tokenizer, or a processor that has one
    device: str
    dtype: torch.dtype

    @property
    def tokenizer(self) -> Any:
        return getattr(self.processor, "tokenizer", self.processor)


def model_location(spec: str, layout: Layout) -> tuple[str, str | None]:
    """(id or absolute path, revision) of `hub:<id>@<revision>` or `path:<folder>`.

    Raises:
        InputError: the folder or its `config.json` is missing, or a local folder has the name of the hub's model.
    """
    kind, _, rest = spec.partition(":")
    if kind == "hub":
        name, _, revision = rest.partition("@")
        if Path(name).exists():  # transformers would load it and ignore the revision
            raise InputError(
                f"model {spec}: {Path(name).resolve()} has the name of the hub's model; use path: or move it"
            )
        return name, revision or None
    folder = layout.resolve(rest)
    if not (folder / "config.json").is_file():
        missing = "no config.json in it" if folder.is_dir() else "no such folder"
        raise InputError(f"model {spec}: {missing} ({folder})")
    return str(folder), None


def model_name(spec: str) -> str:
    """The model's name as recorded with captions: `<id>@<revision>`, or the folder's name."""
    kind, _, rest = spec.partition(":")
    return rest if kind == "hub" else rest.rstrip("/").rpartition("/")[2]


def model_identity(spec: str, layout: Layout) -> str:
    """Digest that identifies the model: of its id and revision, or of the bytes of all files in its folder."""
    location, revision = model_location(spec, layout)
    if spec.startswith("hub:"):
        return value_digest({"id": location, "revision": revision})
    folder = layout.resolve(spec.partition(":")[2])
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return value_digest({path.relative_to(folder).as_posix(): file_sha256(path) for path in paths})


def load_model(params: RewriteCaptioner | VLMCaptioner, layout: Layout) -> Loaded:
    """The model of a captioner, loaded once until `release_models`.

    Raises:
        InputError: the model, its processor or its tokenizer is missing or of another kind.
        ResourceError: a package or memory is missing, or the download failed.
    """
    location, revision = model_location(params.model, layout)
    return _load(params.captioner, params.model, location, revision, params.dtype, params.trust_remote_code)


@lru_cache(maxsize=2)  # one per kind of caption
def _load(captioner: str, spec: str, location: str, revision: str | None, dtype: str, remote_code: bool) -> Loaded:
    import torch
    import transformers

    options: dict[str, Any] = {"revision": revision, "trust_remote_code": remote_code}
    device = settings().torch_device()
    with _clear_errors(spec), _clear_memory_errors(spec):
        if captioner == "vlm":
            processor = transformers.AutoProcessor.from_pretrained(location, **options)
            if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
                raise InputError(f"model {spec}: it has no processor for pictures and text (processor_config.json)")
            model_class: Any = transformers.AutoModelForImageTextToText
        else:
            processor = transformers.AutoTokenizer.from_pretrained(location, **options)
            model_class = transformers.AutoModelForCausalLM
        model = model_class.from_pretrained(location, dtype=getattr(torch, dtype), **options)
        loaded = Loaded(model.eval().requires_grad_(False).to(device), processor, device, getattr(torch, dtype))
    tokenizer = loaded.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return loaded


def release_models() -> None:
    """Drop the loaded models, which frees their memory; the next load reads their files again."""
    _load.cache_clear()


@contextmanager
def _clear_errors(spec: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ResourceError(f"model {spec}: {_first_line(error)}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        if spec.startswith("hub:") and isinstance(error, OSError):
            raise ResourceError(f"model {spec}: it could not be fetched or read: {_first_line(error)}") from error
        raise InputError(f"model {spec}: it cannot be loaded: {_first_line(error)}") from error


@contextmanager
def _clear_memory_errors(spec: str) -> Iterator[None]:
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _no_memory(spec) from error
    except RuntimeError as error:
        if "allocate memory" in str(error):  # the CPU allocator has no error class of its own
            raise _no_memory(spec) from error
        raise


def _no_memory(spec: str) -> ResourceError:
    return ResourceError(f"model {spec}: out of memory; use a smaller batch_size, a narrower dtype or a smaller model")


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0][:300]}"


def fill_prompt(prompt: str, meta: Mapping[str, Any], tokenizer: Any) -> str | Failure:
    """The prompt with `{caption}` replaced by the sample's raw caption, in English if possible."""
    if "{caption}" not in prompt:
        return prompt
    caption = prompt_caption(meta)
    return caption if isinstance(caption, Failure) else prompt.replace("{caption}", as_plain_text(caption, tokenizer))


def prompt_caption(meta: Mapping[str, Any]) -> str | Failure:
    """The sample's raw caption for a prompt, in English if possible, or why there is none."""
    captions = meta["captions"]
    texts = [text for text in map(fold, captions[primary_language(captions)]) if text] if captions else []
    return texts[0][:_PROMPT_CHARS] if texts else Failure("no raw caption to put into the prompt")


def as_plain_text(text: str, tokenizer: Any) -> str:
    """`text` without the tokenizer's special tokens: a space after the first character breaks each."""
    tokens = sorted({str(token) for token in tokenizer.all_special_tokens if len(str(token)) > 1})
    while found := [token for token in tokens if token in text]:
        for token in found:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def generate(loaded: Loaded, inputs: Any, max_new_tokens: int) -> list[str]:
    """Greedy continuations of a left-padded batch, decoded without special tokens."""
    import torch

    inputs = inputs.to(loaded.device)
    for name, value in inputs.items():
        if torch.is_floating_point(value):
            inputs[name] = value.to(loaded.dtype)
    prompt = inputs["input_ids"]  # [B, L]
    with torch.inference_mode():
        ids = loaded.model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            pad_token_id=loaded.tokenizer.pad_token_id,
        )
    if ids.shape[1] > prompt.shape[1] and torch.equal(ids[:, : prompt.shape[1]], prompt):
        ids = ids[:, prompt.shape[1] :]  # decoders also return the prompt, encoder-decoders do not
    return loaded.tokenizer.batch_decode(ids, skip_special_tokens=True)


def caption_in_batches(
    items: Sequence[Item | Failure], batch_size: int, write: Callable[[list[Item]], list[str]], spec: str
) -> list[str | Failure]:
    """`write` over fixed batches of items; items that are already failures stay unchanged.

    If a batch raises, its items are tried one by one, and those that raise again become failures.

    Raises:
        ResourceError: out of memory.
    """
    results: list[str | Failure] = []
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        with _clear_memory_errors(spec):
            written = iter(_write(write, [item for item in batch if not isinstance(item, Failure)]))
        results += [item if isinstance(item, Failure) else next(written) for item in batch]
    return results


def _write(write: Callable[[list[Item]], list[str]], items: list[Item]) -> list[str | Failure]:
    import torch

    if not items:
        return []
    try:
        return [clean(text) or Failure("the model wrote no text") for text in write(items)]
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
        if "allocate memory" in str(error):
            raise
        if len(items) == 1:
            return [Failure(_first_line(error))]
        return [result for item in items for result in _write(write, [item])]


def clean(text: str) -> str:
    """The caption in a model's output: its first paragraph on one line, without role marks and quotes."""
    text = _ROLE.sub("", _THINKING.sub("", text).strip())
    text = _NEXT_ROLE.split(text)[0]
    paragraphs = [fold(part) for part in re.split(r"\n\s*\n", text)]
    paragraphs = [part for part in paragraphs if part]
    if len(paragraphs) > 1 and paragraphs[0].endswith(":"):
        paragraphs = paragraphs[1:]  # "Here is the caption:"
    text = paragraphs[0] if paragraphs else ""
    quoted = _QUOTED.match(text)
    return quoted[2].strip() if quoted and not set('"“”') & set(quoted[2]) else text
