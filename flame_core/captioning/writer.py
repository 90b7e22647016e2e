"""A trained captioner: a model folder whose tower has a connector, and the LLM that it was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flame_core.captioning.address import writes_of
from flame_core.digest import text_sha256, value_digest
from flame_core.errors import InputError
from flame_core.params import CaptionWriting, LLMParams
from flame_core.soft_prompts.frozen_llm import FrozenLLM, llm_digest, load_frozen
from flame_core.soft_prompts.reader import write
from flame_core.text.llm import read_source
from flame_core.verification import DIGESTS, verify
from flame_core.vision.image_encoder import ImageEncoder, load_encoder
from flame_core.vision.tower import ImageTower

BATCH = 16


def require_llm(folder: Path, writes: dict[str, Any], llm: Path) -> None:
    """Refuse an LLM that a captioner was not trained for: its prompts mean nothing to another.

    Raises:
        InputError: it is missing, or another one; names both.
    """
    digest = llm_digest(llm)
    if digest != writes["llm"]:
        raise InputError(
            f"{folder} was trained for {writes['llm_name']} ({writes['llm'][:12]}), and {llm} holds {llm.name} "
            f"({digest[:12]}): name the folder of that LLM"
        )


class PictureWriter:
    """Writes captions of pictures; each depends only on the picture, the model and how it is written."""

    def __init__(self, encoder: ImageEncoder, llm: FrozenLLM) -> None:
        self._encoder, self._llm = encoder, llm

    @classmethod
    def load(cls, folder: Path, llm: Path, device: str, dtype: torch.dtype = torch.float32) -> PictureWriter:
        """The captioner of a model folder.

        Raises:
            InputError: a file is missing or damaged, the tower has no connector, or the LLM is another one.
        """
        writes = writes_of(folder)
        require_llm(folder, writes, llm)
        if (folder / DIGESTS).is_file():
            verify({folder: ["*"]})
        source = read_source(llm)
        params = LLMParams(name=source["name"], source=source["source"])
        return cls(load_encoder(folder, device), load_frozen(llm, params, dtype, device, writes["template"]))

    def prompts(self, jpegs: Sequence[bytes]) -> Tensor:
        """The prompts v [N, n, H] of pictures, given as `ingest` prepares them."""
        return torch.from_numpy(self._encoder.encode_with(_prompts, jpegs, BATCH))

    def captions(self, jpegs: Sequence[bytes], writing: CaptionWriting) -> list[str]:
        """The caption of each picture."""
        return self.texts(self.prompts(jpegs), writing)

    def texts(self, v: Tensor, writing: CaptionWriting) -> list[str]:
        """What the LLM writes behind prompts [N, n, H], each on one line; it may be empty."""
        texts: list[str] = []
        for start in range(0, len(v), BATCH):
            part = v[start : start + BATCH]
            with torch.random.fork_rng(enabled=writing.do_sample):
                if writing.do_sample:
                    torch.manual_seed(int(text_sha256(f"{writing.seed} {value_digest(part.tolist())}")[:15], 16))
                texts += write(self._llm, part, **writing.options)
        return [" ".join(text.split()) for text in texts]


def _prompts(tower: ImageTower, pictures: Tensor) -> Tensor:
    return tower(pictures, ("prompts",))["prompts"]
