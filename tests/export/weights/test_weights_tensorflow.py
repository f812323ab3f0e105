"""TensorFlow's tf_model.h5, beside what transformers 4.57 makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgellm.errors import CheckpointError, MissingDependencyError, TensorError
from edgellm_export.sources.opening import open_checkpoint
from edgellm_export.weights import hdf5_structure
from edgellm_export.weights.hdf5 import read_hdf5
from edgellm_export.weights.tensorflow import levels_of
from weights.tensorflow_files import FAMILIES, write_tensorflow

h5py = pytest.importorskip("h5py")


@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_are_those_that_transformers_reads(family: str, tmp_path: Path) -> None:
    expected = write_tensorflow(tmp_path, family)
    opened = open_checkpoint(str(tmp_path))
    found, prefix = opened.tensors, {"bert-base": "bert."}.get(family, "")
    unread = {"final_logits_bias"} if family == "marian" else set()
    assert found.keys() == {prefix + name for name in expected} | unread
    for name, array in expected.items():
        tensor = found[prefix + name]
        assert tensor.shape == array.shape
        np.testing.assert_array_equal(tensor.rows(0, len(array)), array)
        np.testing.assert_array_equal(tensor.rows(1, len(array) - 1), array[1:-1])
    assert (opened.source["format"], opened.source["dtypes"]) == ("tensorflow", ["F32"])


def test_tensorflows_safetensors_too(tmp_path: Path) -> None:
    """There the model's own name is left out of the variables' names."""
    write_tensorflow(tmp_path, "bert")
    variables = read_hdf5(tmp_path / "tf_model.h5")
    arrays = {name.partition("/")[2]: v.rows(0, v.shape[0]) for name, v in variables.items()}
    expected = {name: t.rows(0, t.shape[0]) for name, t in open_checkpoint(str(tmp_path)).tensors.items()}
    save_file(arrays, tmp_path / "model.safetensors", {"format": "tf"})
    found = open_checkpoint(str(tmp_path)).tensors
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name].rows(0, len(array)), array)


NAMES = {
    "m/bert/encoder/layer_._0/output/dense/kernel:0": "bert.encoder.layer.0.output.dense.kernel",
    "m/mlm___cls/predictions/bias:0": "cls.predictions.bias",
    "m/a___b___c/x:0": "c.x",
    "final_logits_bias:0": "final_logits_bias",
    "m//a//b": "a.b",
    "m/a/b___c": "a.b___c",
    ":0": ":0",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_variables(name: str) -> None:
    assert ".".join(levels_of(name)) == NAMES[name]


def test_long_lists_of_names_are_cut(tmp_path: Path) -> None:
    """As Keras does where a list does not fit into an attribute."""
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names0"], file.attrs["layer_names1"] = [b"a"], ["b"]
        for layer in "ab":
            group = file.create_group(layer)
            group.attrs["weight_names0"], group.attrs["weight_names1"] = [f"m/{layer}/x:0"], [f"m/{layer}/y:0"]
            for name in "xy":
                group.create_dataset(f"m/{layer}/{name}:0", data=np.ones(3, np.float16))
    assert list(read_hdf5(tmp_path / "w.h5")) == ["m/a/x:0", "m/a/y:0", "m/b/x:0", "m/b/y:0"]


def _file(change: Callable[[Any, Any], None]) -> Callable[[Path], None]:
    """A file with one layer and one variable, in which `change` makes the variable `x`."""

    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = ["a"]
            group = file.create_group("a")
            group.attrs["weight_names"] = ["x"]
            change(file, group)

    return write


def _elsewhere(file: Any, group: Any) -> None:
    group["x"] = h5py.ExternalLink("/etc/other.h5", "/x")


def _raw_elsewhere(file: Any, group: Any) -> None:
    group.create_dataset("x", (4,), "f4", external=[("/etc/hostname", 0, 16)])


def _virtual(file: Any, group: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", shape=(4,))
    group.create_virtual_dataset("x", layout)


def _without_names(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.ones(3))


def _behind_something(path: Path) -> None:
    h5py.File(path, "w", userblock_size=512).close()


DAMAGED = {
    "a link to another file": (_file(_elsewhere), "nothing of its own at 'x'"),
    "a link within": (_file(lambda f, g: g.__setitem__("x", h5py.SoftLink("/b"))), "nothing of its own at 'x'"),
    "numbers of another file": (_file(_raw_elsewhere), "not stored in one piece"),
    "a view of another file": (_file(_virtual), "not stored in one piece"),
    "compressed": (
        _file(lambda f, g: g.create_dataset("x", data=np.ones(99), compression="gzip")),
        "not stored in one piece",
    ),
    "numbers that were not written": (_file(lambda f, g: g.create_dataset("x", (9,), "f4")), "not stored in one piece"),
    "high bytes first": (_file(lambda f, g: g.create_dataset("x", data=np.ones(3, ">f4"))), "x has type >f4"),
    "text": (_file(lambda f, g: g.create_dataset("x", data="text")), r"x has type \|O"),
    "a group": (_file(lambda f, g: g.create_group("x")), "damaged"),
    "nothing": (_file(lambda f, g: None), "nothing of its own at 'x'"),
    "names that are numbers": (_file(lambda f, g: g.attrs.__setitem__("weight_names", [1])), "names"),
    "one number for names": (_file(lambda f, g: g.attrs.__setitem__("weight_names", 1)), "damaged"),
    "no names": (_without_names, "has no layer_names: it was not written by save_pretrained"),
    "something in front": (_behind_something, "something in front of it"),
    "no HDF5": (lambda path: path.write_bytes(b"no"), "damaged"),
    "a git-lfs pointer": (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "lfs pull"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_other_files_are_refused(case: str, tmp_path: Path) -> None:
    write, message = DAMAGED[case]
    write(tmp_path / "tf_model.h5")
    with pytest.raises(CheckpointError, match=message) as error:
        read_hdf5(tmp_path / "tf_model.h5")
    assert "tf_model.h5" in str(error.value)


def test_truncations_are_refused(tmp_path: Path) -> None:
    write_tensorflow(tmp_path, "gpt2")
    whole = (tmp_path / "tf_model.h5").read_bytes()
    for length in range(0, len(whole) - 1, len(whole) // 100):
        (tmp_path / "cut.h5").write_bytes(whole[:length])
        with pytest.raises(hdf5_structure.ERRORS):
            hdf5_structure.arrays(tmp_path / "cut.h5")
    with pytest.raises(CheckpointError, match="truncated"):
        read_hdf5(tmp_path / "cut.h5")


def test_convolutions_are_not_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        file.attrs["layer_names"] = ["a"]
        group = file.create_group("a")
        group.attrs["weight_names"] = ["m/conv/kernel:0"]
        group.create_dataset("m/conv/kernel:0", data=np.ones((2, 3, 4), np.float32))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(TensorError, match=r"conv\.weight has the shape \[2, 3, 4\]: a convolution"):
        open_checkpoint(str(tmp_path))


def test_a_library_that_never_ends_or_crashes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the HDF5 library does with some damaged files."""
    write_tensorflow(tmp_path, "gpt2")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for library in ("def File(*_):\n  while True: pass", "import os\nos.abort()"):
        (tmp_path / "h5py.py").write_text(library)
        with pytest.raises(CheckpointError, match=r"the HDF5 library cannot read it \(status -\d+\)"):
            open_checkpoint(str(tmp_path))


def test_without_h5py_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tensorflow(tmp_path, "gpt2")
    (tmp_path / "h5py.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"tf_model\.h5 needs h5py.*pip install edgellm\[tf\]"):
        open_checkpoint(str(tmp_path))
