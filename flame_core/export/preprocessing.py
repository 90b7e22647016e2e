"""How pictures are prepared, in the words of other libraries: evaluation's view (`vision.views`) and its numbers.

Evaluation takes the central square and resizes it to the tower's size (bicubic). `transformers` has one processor that
does it in this order, Perceiver's. timm's transforms resize the short side first and crop then, which moves a picture
that is not square by up to half a pixel of the small one, so a program for timm crops the square before.
"""

from __future__ import annotations

from typing import Any

from flame_core.export.subject import Subject
from flame_core.vision.tower import pixel_moments
from flame_core.vision.views import MEAN, STD

_BICUBIC = 3  # PIL's number, in files of transformers


def mean_and_std(subject: Subject) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel, as the backbone expects pixels: those of `vision.views`, or its own."""
    if subject.tower.own_pixels:
        mean, std = (list(map(float, each)) for each in pixel_moments(subject.tower.backbone))
    else:
        mean, std = (([round(float(value), 8) for value in each.flatten()]) for each in (MEAN, STD))
    return mean, std


def processor_config(subject: Subject) -> dict[str, Any]:
    """`preprocessor_config.json`, which `transformers.AutoImageProcessor` reads."""
    mean, std = mean_and_std(subject)
    size = subject.params.image_size
    return {
        "image_processor_type": "PerceiverImageProcessor",
        "do_convert_rgb": True,
        "do_center_crop": True,  # to the largest square, if both sizes are equal
        "crop_size": {"height": size, "width": size},
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": _BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }


def timm_config(subject: Subject) -> dict[str, Any]:
    """`pretrained_cfg` of timm, from which `timm.data.create_transform` follows."""
    mean, std = mean_and_std(subject)
    size = subject.params.image_size
    return {
        "input_size": [3, size, size],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": mean,
        "std": std,
        "num_classes": 0,
    }


def program(subject: Subject) -> str:
    """Python with PIL and NumPy only: a picture as pixels [1, 3, H, W], exactly as evaluation has them."""
    mean, std = mean_and_std(subject)
    size = subject.params.image_size
    return f"""\
mean = np.float32({mean})
std = np.float32({std})


def pixels(path):
    picture = Image.open(path).convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    square = (left, top, left + side, top + side)
    picture = picture.resize(({size}, {size}), Image.Resampling.BICUBIC, box=square)
    values = (np.asarray(picture, np.float32) / 255 - mean) / std
    return values.transpose(2, 0, 1)[None]
"""
