from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flame_core.errors import InputError
from flame_core.files.stored_rows import RowFile, read_rows

TYPES = [torch.int64, torch.int8, torch.float16, torch.bfloat16, torch.float32]


def file_of(path: Path, values: torch.Tensor) -> RowFile:
    save_file({"x": values}, path)
    return RowFile(path, "flame embed")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
def test_rows_of_several_files_are_read_as_they_are_stored(tmp_path, dtype, shape):
    values = [
        torch.randint(-100, 100, (9, *shape), generator=torch.Generator().manual_seed(i)).to(dtype) for i in (1, 2)
    ]
    files = [file_of(tmp_path / f"{i}.safetensors", own) for i, own in enumerate(values)]
    places = [(1, 8), (0, 0), (0, 8), (1, 8), (1, 3)]
    read = read_rows("x", [files[file] for file, _ in places], [row for _, row in places])
    assert read.dtype == dtype
    assert torch.equal(read, torch.stack([values[file][row] for file, row in places]))


def test_what_the_kernel_no_longer_holds_is_read_from_the_disk(tmp_path):
    values = torch.arange(300 * 700).view(300, 700)
    file = file_of(tmp_path / "0.safetensors", values)
    with file.path.open("rb+") as opened:
        os.fsync(opened)
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    rows = list(range(0, 300, 7))
    assert torch.equal(read_rows("x", [file] * len(rows), rows), values[rows])


def test_files_of_other_types_beside_each_other_are_refused_by_name(tmp_path):
    first = file_of(tmp_path / "0.safetensors", torch.zeros(3, 2))
    for other in (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 4)):
        file = file_of(tmp_path / "1.safetensors", other)
        with pytest.raises(InputError, match=r"1\.safetensors: .* beside a file of \(3, 2\) in F32; run `flame embed`"):
            read_rows("x", [first, file], [0, 0])


def test_a_tensor_of_another_name_is_refused(tmp_path):
    file = file_of(tmp_path / "0.safetensors", torch.zeros(3))
    with pytest.raises(InputError, match=r"0\.safetensors: holds no tensor 'y'; run `flame embed` again"):
        read_rows("y", [file], [0])


def test_a_row_that_is_not_there_is_refused_by_name(tmp_path):
    file = file_of(tmp_path / "0.safetensors", torch.zeros(3))
    for row in (3, -1):
        with pytest.raises(IndexError, match=rf"0\.safetensors: no row {row}"):
            read_rows("x", [file], [row])
