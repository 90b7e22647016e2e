"""The package clip-benchmark on the same embeddings, in a separate environment: equal to 1e-6.

    python -m pytest -m slow tests/suite/test_oracle.py

The environment is made once in the user's cache: clip-benchmark and what it imports are installed without their
dependencies, and the packages of this environment are seen through a .pth file, so torch is not installed twice.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from flame_core.settings import settings
from flame_core.suite.benchmark_results import BenchmarkResult, benchmark_files, result_of_scores
from flame_core.suite.content import Labelled, Question, Questions
from flame_core.suite.tasks import choice, classification, probe, retrieval
from flame_core.suite.tasks.choice import ChoiceParams
from flame_core.suite.tasks.classification import ClassificationParams
from flame_core.suite.tasks.probe import ProbeParams
from flame_core.suite.tasks.retrieval import RetrievalParams
from tests.suite.datasets import Collected, benchmark, captioned, vectors

pytestmark = pytest.mark.slow
PACKAGES = ["clip-benchmark==1.6.2", "open_clip_torch==3.3.0", "ftfy==6.3.1", "wcwidth==0.9.4"]

ORACLE = """
import json, sys
import numpy as np, torch
from torch.utils.data import DataLoader
from clip_benchmark.metrics import image_caption_selection, linear_probe, zeroshot_classification, zeroshot_retrieval

# it takes float() of an array with one element, which NumPy 2.4 no longer allows
zeroshot_classification.float = lambda x: x.item() if isinstance(x, np.ndarray) else float(x)
data = np.load(sys.argv[1], allow_pickle=False)
given = json.loads(str(data["given"]))
Z, T = torch.from_numpy(data["z"]), torch.from_numpy(data["t"])
texts = {text: i for i, text in enumerate(given["texts"])}

class Model(torch.nn.Module):  # pictures and texts are numbers of rows
    def encode_image(self, x): return Z[x.reshape(len(x), -1)[:, 0].long()]
    def encode_text(self, x): return T[x[:, 0].long()]

def tokenizer(rows): return torch.tensor([[texts[row]] for row in rows])

class Rows(torch.utils.data.Dataset):
    classes = given["classes"]
    def __init__(self, rows): self.rows = rows
    def __len__(self): return len(self.rows)
    def __getitem__(self, i): return self.rows[i]

def picture(*numbers):
    x = torch.tensor(numbers, dtype=torch.float32)
    return x.reshape(len(numbers), 1, 1, 1) if len(numbers) > 1 else x.reshape(1, 1, 1)

def collate(batch):
    return torch.stack([row[0] for row in batch]), [row[1] for row in batch]

model, found = Model(), {}
rows = Rows([(picture(i), own) for i, own in enumerate(given["captions"])])
found["retrieval"] = zeroshot_retrieval.evaluate(
    model, DataLoader(rows, 16, collate_fn=collate), tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10])
rows = Rows([(picture(i), label) for i, label in enumerate(given["labels"])])
found["classification"] = zeroshot_classification.evaluate(
    model, DataLoader(rows, 16), tokenizer, given["classes"], given["templates"], "cpu", amp=False)
for name in ("winoground", "sugarcrepe"):
    rows = Rows([(picture(*pictures), own) for pictures, own in given[name]])
    batches = DataLoader(rows, 8, collate_fn=collate)
    found[name] = image_caption_selection.evaluate(model, batches, tokenizer, "cpu", amp=False)

torch.nn.Module.cuda = lambda self: self  # its linear probe insists on a GPU
torch.Tensor.cuda = lambda self: self
torch.nn.DataParallel = lambda module, device_ids: module
count = len(given["labels"])
train = linear_probe.FeatureDataset(Z[:count], torch.tensor(given["labels"]))
layer = linear_probe.train(
    DataLoader(train, count, shuffle=True), Z.shape[1], len(given["classes"]), 0.01, 0.1, 20, False, "cpu", 3)
found["probe"] = [layer.weight.tolist(), layer.bias.tolist()]

from types import ModuleType, SimpleNamespace
sys.modules["clip_benchmark.metrics.captioning"] = ModuleType("captioning")  # needs packages that build does not
from clip_benchmark.cli import main_build
main_build(SimpleNamespace(files=[sys.argv[2]], output=sys.argv[3]))
json.dump(found, open(sys.argv[4], "w"))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of the oracle's environment."""
    folder = settings().cache_dir / "tests" / "clip-benchmark"
    found = folder / "bin" / "python"
    done, site = folder / "done", folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    if not done.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*install, "--target", site, *PACKAGES], check=True)
        done.write_text("\n".join(PACKAGES))
    (site / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")  # each checkout may have its own environment
    return found


@pytest.fixture(scope="module")
def given(python, tmp_path_factory):
    """Embeddings with a common direction, so that scores are close together, and the oracle's results for them."""
    rng = np.random.default_rng(0)
    pictures, classes, templates = 120, [f"class {i}" for i in range(12)], ["a {c}", "a photo of {c}", "{c}"]
    labels = rng.integers(0, len(classes), pictures).tolist()
    captions = [[f"caption {i} {j}" for j in range(1 + i % 5)] for i in range(pictures)]
    wino = [[[i, i + 1], [f"w{i} 0", f"w{i} 1"]] for i in range(0, 60, 2)]
    sugar = [[[i], [f"s{i} right", f"s{i} wrong"]] for i in range(60)]
    texts = [text for own in captions for text in own]
    texts += [template.format(c=name) for name in classes for template in templates]
    texts += [text for _, own in wino + sugar for text in own]
    centre = vectors(1, 32, seed=9)
    z = vectors(pictures, 32) + 2 * centre
    t = vectors(len(texts), 32, seed=1) + 2 * centre
    for i, own in enumerate(captions):  # captions know something of their pictures, classes of theirs
        for text in own:
            t[texts.index(text)] += 0.4 * z[i]
    z, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (z.astype(np.float32), t.astype(np.float32)))
    content = {
        "texts": texts, "captions": captions, "labels": labels, "classes": classes, "templates": templates,
        "winoground": wino, "sugarcrepe": sugar,
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("oracle")
    (folder / "oracle.py").write_text(ORACLE)
    np.savez(folder / "given.npz", z=z, t=t, given=json.dumps(content))
    place = {text: i for i, text in enumerate(texts)}

    def encode(rows):
        return t[[place[row] for row in rows]]

    score = retrieval.score_language(
        RetrievalParams(kind="retrieval"), captioned([len(own) for own in captions]), "en", z,
        lambda rows: encode([f"caption {row.removeprefix('en ')}" for row in rows]),
    )  # fmt: skip
    each = Collected(benchmark("retrieval", "urban1k"), captioned([1]))
    result = result_of_scores(each, [score], [], 0.95)
    assert isinstance(result, BenchmarkResult)
    (folder / "results").mkdir()
    for name, bytes_ in benchmark_files([result], "ours", "flame").items():
        if name.startswith("benchmarks/"):
            (folder / "results" / Path(name).name).write_bytes(bytes_)
    files = [folder / name for name in ("oracle.py", "given.npz", "results", "table.csv", "found.json")]
    subprocess.run([python, *files], check=True, cwd=folder)
    found = json.loads((folder / "found.json").read_text())
    return content, z, encode, score, found, folder


def test_retrieval(given):
    *_, score, found, _ = given
    assert score.metrics == pytest.approx(found["retrieval"], abs=1e-6)
    assert 0.1 < score.metrics["text_retrieval_recall@1"] < 0.99


def test_classification(given):
    content, z, encode, _, found, _ = given
    labels = np.array(content["labels"])
    own = Labelled([], labels, {"en": content["classes"]}, {"en": content["templates"]})
    score = classification.score_language(ClassificationParams(kind="classification"), own, "en", z, encode)
    assert score.metrics == pytest.approx(found["classification"], abs=1e-6)


@pytest.mark.parametrize("name", ["winoground", "sugarcrepe"])
def test_choice(given, name):
    content, z, encode, _, found, _ = given
    questions = [Question(str(i), name, tuple(p), tuple(t)) for i, (p, t) in enumerate(content[name])]
    task = ChoiceParams(kind="choice", ties="first")
    score = choice.score_questions(task, Questions([None] * len(z), questions), "en", z, encode)
    assert score.metrics == pytest.approx({key: found[name][key] for key in score.metrics}, abs=1e-6)


def test_linear_probe_by_adamw(given):
    """All in one batch, so the order in which pictures are drawn does not matter."""
    content, z, *_, found, _ = given
    labels = np.array(content["labels"])
    task = ProbeParams(kind="linear_probe", weight_decay=0.01, batch_size=len(labels), seed=3)
    weight, bias = probe.train_adamw(z, labels, len(content["classes"]), task)
    np.testing.assert_allclose(weight, found["probe"][0], atol=1e-5)
    np.testing.assert_allclose(bias, found["probe"][1], atol=1e-5)


def test_its_build_reads_our_results(given):
    import csv

    *_, score, _, folder = given
    with (folder / "table.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["model_fullname"] == "ours flame"
    assert row["task"] == "zeroshot_retrieval"
    assert float(row["text_retrieval_recall@5"]) == pytest.approx(score.metrics["text_retrieval_recall@5"], abs=1e-6)
