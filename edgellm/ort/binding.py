"""Inputs and outputs of a run, tied to memory, and their types by ONNX Runtime's names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.ort.library import Device, onnxruntime
from edgellm.types import Array

DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(uint16)": np.dtype(np.uint16),  # the bits of bfloat16
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(bool)": np.dtype(np.bool_),
}
TYPE_NAMES = {dtype.name: name for name, dtype in DTYPES.items()}  # by numpy's names
FLOATS = TYPE_NAMES["float32"], TYPE_NAMES["float16"]
INTEGERS = TYPE_NAMES["int64"], TYPE_NAMES["int32"], TYPE_NAMES["bool"]  # what ids, positions and masks may be


class Binding:
    """Inputs and outputs of a loaded graph tied to memory, so that a run moves nothing it does not have to.

    Bound arrays are kept alive here; raw addresses are the caller's to keep valid until they are bound anew.
    `in_place`: a run sees what was written to an input array after binding it.
    """

    def __init__(self, binding: Any, run: Callable[[Any], None], device: Device) -> None:
        """`binding` is ONNX Runtime's; `run` runs the graph, which is on `device`, with it."""
        self.in_place = device == "cpu"
        self._ort = onnxruntime()
        self._binding, self._run = binding, run
        self._kept: dict[str, Any] = {}
        self._order: list[str] = []  # of the first binding of each output: how ONNX Runtime returns them

    def input(self, name: str, array: Array) -> None:
        """On CUDA the array is copied to the device now: bind again after changing it."""
        value = self._value(array)
        self._binding.bind_ortvalue_input(name, value)
        self._kept[name] = (array, value)

    def input_at(self, name: str, array: Array, address: int) -> None:
        """`input` for an array bound anew at each step: cheaper, as its first byte's address is known already."""
        self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, address)
        self._kept[name] = array

    def output(self, name: str, array: Array) -> None:
        """The run writes into `array`, whose shape must be the one it computes."""
        value = self._value(array)
        self._binding.bind_ortvalue_output(name, value)
        self._remember(name, (array, value))

    def new_output(self, name: str, device: Device = "cpu") -> None:
        """The run allocates this output; fetch it with `fetch` or `fetch_device`."""
        self._binding.bind_output(name, device)
        self._remember(name, None)

    def address(
        self, inputs: str, outputs: str, device: Device, dtype: npt.DTypeLike, shape: Sequence[int], at: int
    ) -> None:
        """Bind the memory at `at` as an input and as an output: the run works on it in place."""
        self._binding.bind_input(inputs, device, 0, dtype, shape, at)
        self._binding.bind_output(outputs, device, 0, dtype, shape, at)
        self._remember(outputs, None)

    def device_input(self, name: str, array: DeviceArray) -> None:
        self._binding.bind_ortvalue_input(name, array.value)
        self._kept[name] = array

    def run(self) -> None:
        self._run(self._binding)

    def fetch(self, name: str) -> Array:
        """What the last run wrote to a `new_output` on the CPU."""
        return np.asarray(self.fetch_device(name).value.numpy())

    def fetch_device(self, name: str) -> DeviceArray:
        return DeviceArray(self._binding.get_outputs()[self._order.index(name)])

    def _remember(self, name: str, kept: Any) -> None:
        if name not in self._order:
            self._order.append(name)
        self._kept[name] = kept

    def _value(self, array: Array) -> Any:
        value = self._ort.OrtValue.ortvalue_from_numpy(array)
        # ONNX Runtime silently copies an array that is not contiguous, and writes would then go astray.
        assert value.data_ptr() == array.ctypes.data, "bound arrays must be C-contiguous"
        return value


class DeviceArray:
    """A tensor that ONNX Runtime owns, on the device where it lies."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.address: int = value.data_ptr()
        self.shape: tuple[int, ...] = tuple(value.shape())
        self.nbytes: int = value.tensor_size_in_bytes()

    def numpy(self) -> Array:
        return np.asarray(self.value.numpy())


AnyArray = Array | DeviceArray  # in main memory, or where it lies


def array_of(tensor: AnyArray) -> Array:
    return tensor.numpy() if isinstance(tensor, DeviceArray) else tensor
