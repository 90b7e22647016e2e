"""Other people's models behind the protocol, against the same calls made by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from flame_core.errors import InputError, ResourceError
from flame_core.objectives.clip_teacher import open_teaching_model
from flame_core.suite.models.model import Model, NotOffered, open_model
from tests.suite import tiny_clip
from tests.suite.datasets import COLOURS, picture

PICTURES = [picture(colour, size=(40 + 8 * i, 48)) for i, colour in enumerate(COLOURS)]
SIGLIPS = ("siglip", "siglip2")
TEXTS = ["a cat", "a much longer text about two dogs in the snow", "ein Hund"]


@pytest.fixture(scope="module", params=["clip", "metaclip_2", "siglip", "siglip2"])
def saved(request, tmp_path_factory, byte_tokenizer):
    return request.param, tiny_clip.save(tmp_path_factory.mktemp(request.param), byte_tokenizer, request.param)


def agreeing(family: str, folder: Path) -> tuple[Model, np.ndarray]:
    """The model and its vectors of pictures, after cosines were compared with those of the model's own calls."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    found = open_model("tiny", f"transformers:{folder}", "cpu")
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    padding = {"padding": "max_length", "max_length": 64} if family in SIGLIPS else {}
    dropped = {"token_type_ids", *(["attention_mask"] if family in SIGLIPS else [])}
    z, t = found.pictures(PICTURES), found.texts("raw", TEXTS)
    with torch.inference_mode():
        for i, content in enumerate(PICTURES):
            x = processor(images=Image.open(io.BytesIO(content)), return_tensors="pt")
            for j, text in enumerate(TEXTS):
                read = tokenizer(text, return_tensors="pt", **padding)
                out = model(**x, **{name: value for name, value in read.items() if name not in dropped})
                cosine = torch.nn.functional.cosine_similarity(out.image_embeds, out.text_embeds)
                assert z[i] @ t[j] == pytest.approx(cosine.item(), abs=1e-5)
    return found, z


def test_a_transformers_model_gives_what_its_own_calls_give(saved):
    found, z = agreeing(*saved)
    assert np.linalg.norm(z, axis=1) == pytest.approx(1, abs=1e-5)
    assert found.features(PICTURES).shape == (6, 32)
    assert np.abs(z[0] - z[1]).max() > 1e-3


def test_clip_has_patches_among_its_texts_and_siglip_has_not(saved):
    family, folder = saved
    found = open_model("tiny", f"transformers:{folder}", "cpu")
    if family in SIGLIPS:
        with pytest.raises(NotOffered, match="attention"):
            found.patches(PICTURES[:1])
        return
    patches = found.patches(PICTURES[:2])
    assert patches.shape == (2, 4, 4, 24)
    assert np.linalg.norm(patches, axis=-1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("family", ["tipsv2", "altclip"])
def test_any_dual_encoder_of_transformers_gives_what_its_own_calls_give(family, tmp_path, byte_tokenizer):
    found, z = agreeing(family, tiny_clip.save(tmp_path, byte_tokenizer, family))
    np.testing.assert_array_equal(found.features(PICTURES), z)
    for asked, said in (
        (lambda: found.patches(PICTURES), f"{family} has its"),
        (found.picture_side, f"{family} reads"),
    ):
        with pytest.raises(NotOffered, match=said):
            asked()


def test_a_model_whose_pictures_and_texts_have_other_dimensions_is_refused(tmp_path, byte_tokenizer):
    folder = tiny_clip.save(tmp_path, byte_tokenizer, "align")
    with pytest.raises(InputError, match=r"align model gives arrays \(1, 640\) for a picture and \(1, 24\) for a text"):
        open_model("tiny", f"transformers:{folder}", "cpu")


def test_a_model_whose_texts_depend_on_their_batch_is_refused(tmp_path, byte_tokenizer):
    """AIMv2 of transformers 5.23 attends to later tokens too, unless the batch has padding."""
    folder = tiny_clip.save(tmp_path, byte_tokenizer, "aimv2")
    with pytest.raises(InputError, match=r"aimv2 model gives a text another vector beside a longer text"):
        open_model("tiny", f"transformers:{folder}", "cpu")


def test_a_text_beyond_the_models_limit_is_cut(saved):
    _, folder = saved
    found = open_model("tiny", f"transformers:{folder}", "cpu")
    start = "x" * 62  # with the first token of the tokenizer all that fits, or more
    np.testing.assert_allclose(found.texts("raw", [start + "x abc"]), found.texts("raw", [start + "x def"]), atol=1e-6)


def test_a_checkpoint_of_another_shape_is_refused(tmp_path, byte_tokenizer):
    folder = tiny_clip.save(tmp_path / "clip", byte_tokenizer)
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"weights are missing or of another shape, such as visual_projection"):
        open_model("tiny", f"transformers:{folder}", "cpu")
    weights["visual_projection.weight"] = torch.zeros(7, 32)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="visual_projection"):
        open_model("tiny", f"transformers:{folder}", "cpu")
    with pytest.raises(InputError, match=r"not a model that transformers can read"):
        open_model("tiny", f"transformers:{tmp_path}", "cpu")


def test_a_model_of_another_family_is_refused(tmp_path, byte_tokenizer):
    from tests.conftest import tiny_llm

    folder = tiny_clip.save(tmp_path / "x", byte_tokenizer)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    tiny_llm("llama").save_pretrained(folder)
    with pytest.raises(InputError, match=r"a llama model, which does not give vectors of both .* such as one of clip"):
        open_model("tiny", f"transformers:{folder}", "cpu")


def test_a_hub_id_that_cannot_be_fetched_is_said():
    with pytest.raises(ResourceError, match="transformers:nobody/nothing is no folder here"):
        open_model("tiny", "transformers:nobody/nothing", "cpu")


def test_a_timm_backbone_has_features_and_no_texts(tmp_path):
    import timm

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=0).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    found = open_model("net", f"timm:resnet10t@{tmp_path / 'weights.safetensors'}", "cpu")
    features = found.features(PICTURES)
    assert features.shape == (6, 512)
    config = timm.data.resolve_model_data_config(model)
    x = timm.data.create_transform(**config, is_training=False)(Image.open(io.BytesIO(PICTURES[0])))
    with torch.inference_mode():
        np.testing.assert_allclose(features[0], model(x[None])[0].numpy(), atol=1e-4)
    with pytest.raises(NotOffered, match="linear_probe"):
        found.texts("raw", TEXTS)
    with pytest.raises(InputError, match=r"timm:resnet18@.* cannot be loaded"):
        open_model("net", f"timm:resnet18@{tmp_path / 'weights.safetensors'}", "cpu")


@pytest.mark.parametrize("name", ["resnet10t", "test_vit", "test_convnext"])  # classifiers fc, head and head.fc
def test_a_file_as_timm_publishes_it_has_a_classifier_that_is_left_out(tmp_path, name):
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    found = open_model("net", f"timm:{name}@{tmp_path / 'model.safetensors'}", "cpu")
    model.reset_classifier(0)
    save_file(model.state_dict(), tmp_path / "backbone.safetensors")
    bare = open_model("net", f"timm:{name}@{tmp_path / 'backbone.safetensors'}", "cpu")
    assert found.identity == bare.identity
    np.testing.assert_array_equal(found.features(PICTURES), bare.features(PICTURES))
    save_file({**model.state_dict(), "stray.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"(?s)cannot be loaded.*stray\.weight"):
        open_model("net", f"timm:{name}@{tmp_path / 'model.safetensors'}", "cpu")


def test_embeddings_are_kept_under_the_digest_of_the_weights():
    from flame_core.suite.models.weights import weights_sha256

    model = torch.nn.Linear(3, 2)
    first = weights_sha256(model)
    assert weights_sha256(model) == first
    with torch.no_grad():
        model.bias[1] += 1e-6
    assert weights_sha256(model) != first


def test_open_clip_is_asked_for_by_name_where_it_is_not_installed(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ResourceError, match="open_clip_torch is not installed"):
        open_model("mine", "open_clip:ViT-B-16@laion", "cpu")


def test_the_picture_side_gives_the_vectors_of_the_model_s_own_preprocessing(saved):
    family, folder = saved
    found = open_model("tiny", f"transformers:{folder}", "cpu")
    if family == "siglip2":
        with pytest.raises(NotOffered, match="any shape"):
            found.picture_side()
        with pytest.raises(InputError, match="cannot be a teacher: NaFlex reads pictures of any shape"):
            open_teaching_model(f"transformers:{folder}")
        return
    side = found.picture_side()
    assert side.size == 32 and side.dim == (32 if family == "siglip" else 24)
    square = picture(COLOURS[0], size=(32, 32))
    assert_same_vectors(side, square, found.pictures([square]))


def test_a_model_of_open_clip_encodes_and_shows_its_picture_side(tmp_path):
    """Where that package is installed: a tiny architecture with weights from a file."""
    open_clip = pytest.importorskip("open_clip")
    tower = {"width": 32, "layers": 2}
    config = {
        "embed_dim": 24,
        "vision_cfg": {**tower, "image_size": 32, "patch_size": 8, "head_width": 16},
        "text_cfg": {**tower, "context_length": 16, "vocab_size": 49408, "heads": 2},
    }
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny.json")
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny").state_dict(), tmp_path / "weights.pt")
    found = open_model("mine", f"open_clip:tiny@{tmp_path / 'weights.pt'}", "cpu")
    square = picture(COLOURS[0], size=(32, 32))
    z, t = found.pictures([square]), found.texts("raw", TEXTS)
    assert z.shape == (1, 24) and t.shape == (3, 24)
    assert np.linalg.norm(np.concatenate([z, t]), axis=1) == pytest.approx(1, abs=1e-5)
    side = found.picture_side()
    assert (side.size, side.dim) == (32, 24)
    assert_same_vectors(side, square, z)


def assert_same_vectors(side, content: bytes, vectors: np.ndarray) -> None:
    """Of a picture of the side's own size, whose preprocessing is only the normalisation."""
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(content)).convert("RGB"))).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (side.mean, side.std))
    with torch.inference_mode():
        own = side.module(((pixels - mean) / std)[None])
    assert own.numpy() == pytest.approx(vectors, abs=1e-4)
