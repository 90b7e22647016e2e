"""Weights too large for one file of ONNX go into a second one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from flame_core.export import onnx_format
from tests.export import subjects


def test_large_weights_lie_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, byte_tokenizer):
    made = subjects.subject(subjects.trained(tmp_path, "facets", byte_tokenizer))
    monkeypatch.setattr(onnx_format, "LARGEST", 0)
    (tmp_path / "out").mkdir()
    usage = onnx_format.write(made, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(usage.files)
    sizes = [(tmp_path / "out" / name).stat().st_size for name in (onnx_format.FILE, onnx_format.DATA)]
    assert sizes[0] < 50_000 < 100_000 < sizes[1]
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    vectors, facets = session.run(["vectors", "facets"], {"pixel_values": subjects.pictures()})
    with torch.inference_mode():
        z = made.tower.z(torch.from_numpy(subjects.pictures())).numpy()
    np.testing.assert_allclose(np.concatenate([vectors[:, None], facets], axis=1), z, atol=1e-4)
    model = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", onnx_format.OPSET)]
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
