"""The GPU's way of cutting against PIL's, on a CPU; which pictures nvJPEG gets; an error where there is no GPU."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch

from flame_core.errors import ParamsError
from flame_core.params import AugmentationParams, TrainParams
from flame_core.vision.decoding import cut, open_with
from flame_core.vision.nvjpeg import (
    EncodedPictures,
    _decoded_on_gpu,
    _groups,
    _require_decoding,
    cut_in_groups,
    picture_size,
    reads,
    require_gpu,
)
from flame_core.vision.views import Place, training_view, uncut_view
from tests.vision.test_decoding import CONTENTS, encoded


def on_pixels(place: Place, width: int, height: int) -> Place:
    """The nearest place whose edges lie between pixels."""
    left, top, right, bottom, mirrored = place
    left, right = round(left * width) / width, round(right * width) / width
    return left, round(top * height) / height, right, round(bottom * height) / height, mirrored


@pytest.mark.parametrize("size", [24, 35, 128])
def test_views_are_pil_s(size):
    """Of pictures of several sizes at once, downwards and upwards, mirrored or not."""
    contents = [encoded(), encoded("PNG"), encoded(size=(40, 61)), encoded(quality=50)] * 20  # more than one group
    places = [(0, 0, 1, 1, 0.0), (0.25, 0.1, 0.75, 0.8, 1.0)]
    boxes = [[on_pixels(place, *picture_size(content)) for place in places] for content in contents]
    pictures = EncodedPictures.of(contents).decode("cpu")
    views = cut_in_groups(pictures, torch.tensor(boxes), size)
    assert views.shape == (80, 2, size, size, 3) and views.dtype == torch.uint8
    for content, found, place in zip(contents, views, boxes, strict=True):
        width, height = picture_size(content)
        for view, (left, top, right, bottom, mirrored) in zip(found, place, strict=True):
            box = tuple(map(round, (left * width, top * height, right * width, bottom * height)))
            expected = cut(open_with("pil", content), box, size)  # pyright: ignore[reportArgumentType]
            apart = (view.int() - (expected.flip(1) if mirrored else expected).int()).abs()
            assert apart.max() <= 1 and apart.float().mean() < (
                0.02 if width > height else 0.3
            )  # PIL resizes heights first


def test_what_nvjpeg_refuses_is_decoded_here(monkeypatch):
    """And only that, though the decoder refuses a whole list for one picture."""
    import torchvision.io

    contents = [encoded(quality=20 + number) for number in range(70)]
    bad, asked, real = contents[66], [], torchvision.io.decode_jpeg

    def decode_jpeg(parts, mode, device="cpu"):
        if isinstance(parts, list):
            asked.append(len(parts))
            if any(part.numpy().tobytes() == bad for part in parts):
                raise RuntimeError("Failed to decode image")
        return real(parts, mode, device)

    monkeypatch.setattr(torchvision.io, "decode_jpeg", decode_jpeg)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(synchronize=lambda: None))
    found = _decoded_on_gpu([torch.frombuffer(bytearray(each), dtype=torch.uint8) for each in contents], "cpu")
    assert asked == [64, 6, 1, 1, 1, 1, 1, 1, 1]  # the first of those alone is one that it must read
    for content, picture in zip(contents, found, strict=True):
        assert torch.equal(picture, open_with("torchvision", content))  # pyright: ignore[reportArgumentType]


def test_a_gpu_that_reads_no_picture_is_said(monkeypatch):
    import torchvision.io

    def decode_jpeg(parts, mode, device="cpu"):
        raise RuntimeError("not compiled with nvJPEG")

    monkeypatch.setattr(torchvision.io, "decode_jpeg", decode_jpeg)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(synchronize=lambda: None))
    with pytest.raises(ParamsError, match=r"train\.decoder: nvjpeg reads no picture on this GPU \(not compiled"):
        _decoded_on_gpu([torch.frombuffer(bytearray(encoded()), dtype=torch.uint8)], "cpu")


@pytest.fixture(autouse=True)
def nothing_known():
    _require_decoding.cache_clear()


def test_a_full_gpu_is_no_refused_picture(monkeypatch):
    import torchvision.io

    def decode_jpeg(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torchvision.io, "decode_jpeg", decode_jpeg)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(synchronize=lambda: None))
    with pytest.raises(torch.OutOfMemoryError):
        _decoded_on_gpu([torch.zeros(3, dtype=torch.uint8)], "cpu")


def test_the_canvas_of_large_pictures_is_bounded():
    assert _groups([(100, 100)] * 130) == [slice(0, 64), slice(64, 128), slice(128, 130)]
    found = _groups([(100, 100), (4096, 4096), (4096, 4096), (8192, 64), (9000, 9000), (10, 10), (10, 10)])
    assert found == [slice(0, 3), slice(3, 4), slice(4, 5), slice(5, 7)]
    assert _groups([]) == [slice(0, 0)]


def test_nvjpeg_gets_what_it_reads_alike():
    assert [name for name, content in CONTENTS.items() if reads(content)] == [
        "444", "422", "420", "progressive", "orientation"
    ]  # fmt: skip


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_the_size_is_known_without_decoding(content):
    assert picture_size(content) == (93, 70)


def test_draws_are_those_of_the_other_decoders():
    params = AugmentationParams(scale=(0.3, 0.9), flip=0.5)
    picture = open_with("pil", encoded())
    for seed in range(8):
        one, other = random.Random(seed), random.Random(seed)
        assert uncut_view(93, 70, params, one).place == training_view(picture, 8, params, other).place
        assert one.random() == other.random()


def test_without_a_gpu_it_says_what_to_set():
    require_gpu("torchvision", "cpu")
    require_gpu("nvjpeg", "cuda")
    with pytest.raises(ParamsError, match=r"train\.decoder: nvjpeg .* set it to torchvision"):
        require_gpu("nvjpeg", "cpu")


def test_a_torchvision_without_decoders_is_said_before_training(monkeypatch):
    import torchvision.io

    monkeypatch.delattr(torchvision.io, "decode_jpeg")
    with pytest.raises(ParamsError, match=r"train\.decoder: nvjpeg needs .*decode_jpeg.* set it to torchvision"):
        require_gpu("nvjpeg", "cuda")


def test_it_changes_no_colours():
    with pytest.raises(ValueError, match=r"augmentation\.photometric"):
        TrainParams.model_validate({"decoder": "nvjpeg", "augmentation": {"photometric": {}}})
