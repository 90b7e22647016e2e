"""Folders of models with custom code: it does not run, nobody is asked, and the refusal is one sentence."""

from __future__ import annotations

import builtins
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flame_core.captions.generation import load_model
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import LLMParams, RewriteCaptioner
from flame_core.suite.models.transformers_clip import TransformersModel
from flame_core.text.fetched_llm import fetch
from flame_core.text.llm import SOURCE, load_llm, load_tokenizer
from tests.conftest import tiny_llm

CODE = """
from pathlib import Path
from transformers import PretrainedConfig, PreTrainedModel
Path({mark!r}).touch()
class OddConfig(PretrainedConfig):
    model_type = "odd"
class OddModel(PreTrainedModel):
    config_class = OddConfig
"""


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that the code makes if it runs; stdin must not be read meanwhile."""
    asked = []
    monkeypatch.setattr(builtins, "input", lambda question="": asked.append(question) or "n")
    yield tmp_path / "code has run"
    assert not asked


@pytest.fixture
def odd(mark: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "odd.py").write_text(CODE.format(mark=str(mark)))
    names = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer", "AutoImageProcessor")
    auto_map = {name: "odd.OddConfig" if name == "AutoConfig" else "odd.OddModel" for name in names}
    for file in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        (folder / file).write_text(json.dumps({"model_type": "odd", "auto_map": auto_map}))
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    return folder


def test_an_llm_is_not_drawn_by_foreign_code(odd: Path, mark: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    params = LLMParams(name="odd", source=f"path:{odd}", random_seed=1)
    with pytest.raises(InputError, match=r"cannot be loaded"):
        fetch(params, Layout.find(tmp_path), tmp_path / "out")
    assert not mark.exists()


def test_an_llm_is_not_loaded_by_foreign_code(odd: Path, mark: Path):
    (odd / SOURCE).write_text('{"files": {}}')
    with pytest.raises(InputError, match=r"cannot be loaded"):
        load_llm(odd, 1, torch.float32, "cpu")
    with pytest.raises(InputError, match=r"cannot be loaded"):
        load_tokenizer(odd, LLMParams(name="odd", source=f"path:{odd}"))
    assert not mark.exists()


def test_a_baseline_and_a_captioner_run_no_foreign_code(odd: Path, mark: Path, tmp_path: Path):
    said = r"odd: config\.json names code of the model's own \(odd\.OddConfig\), which is never run: take a model that"
    with pytest.raises(InputError, match=said):
        TransformersModel("odd", str(odd), "cpu")
    captioner = RewriteCaptioner(captioner="rewrite", model=f"path:{odd}", prompt="{caption}")
    with pytest.raises(InputError, match=r"cannot be loaded"):
        load_model(captioner, Layout.find(tmp_path))
    assert not mark.exists()


def test_a_baseline_whose_code_is_in_another_repository_is_refused_by_that_name(odd: Path):
    """As jina-clip's."""
    where = "jinaai/jina-clip-implementation--"
    auto_map = {"AutoConfig": f"{where}configuration_clip.JinaCLIPConfig", "AutoModel": f"{where}modeling_clip.X"}
    (odd / "config.json").write_text(json.dumps({"model_type": "jina_clip", "auto_map": auto_map}))
    with pytest.raises(
        InputError, match=r"names code of the model's own \(jinaai/jina-clip.*never run: take a model that"
    ):
        TransformersModel("jina", str(odd), "cpu")


@pytest.mark.parametrize("source", ["../odd", "/odd", "a/b/c", "odd@../../x"])
def test_a_baseline_of_the_hub_is_no_path(source: str):
    with pytest.raises(InputError, match=r"is no folder here, and .* is not a (hub id|revision)"):
        TransformersModel("odd", source, "cpu")


@pytest.mark.parametrize("damage", ["cut", "header", "config", "tokenizer"])
def test_damaged_files_of_an_llm_are_named(damage: str, tmp_path: Path, byte_tokenizer):
    source, out = tmp_path / "source", tmp_path / "out"
    tiny_llm("llama").save_pretrained(source)
    byte_tokenizer.save_pretrained(source)
    out.mkdir()
    weights = source / "model.safetensors"
    match damage:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-1000])
        case "header":
            weights.write_bytes(struct.pack("<Q", 2**40) + weights.read_bytes()[8:])
        case "config":
            (source / "config.json").write_text('{"model_type": ')
        case "tokenizer":
            (source / "tokenizer.json").write_text("[" * 100_000)
    name = {"config": "config.json", "tokenizer": "tokenizer.json"}.get(damage, "model.safetensors")
    with pytest.raises(InputError, match=rf"path:.*{name} is damaged"):
        fetch(LLMParams(name="tiny", source=f"path:{source}"), Layout.find(tmp_path), out)
