"""Tensors that say they are on cuda:0, keep their numbers on the CPU, and refuse what CUDA refuses.

torch's C++ takes a sham tensor for one of the "meta" device, which no code here uses otherwise. Every operation comes
through `perform`, which looks at the devices, runs the operation on the numbers, and wraps what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sham_cuda.ledger import LEDGER

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")

COPIES = {aten.copy_.default, aten._to_copy.default}
"""Operations that carry numbers from one device to another."""
INDEXING = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
"""Operations that take indices of the CPU, and bring them to the device."""
TAKES_A_NUMBER = {aten.fill_.Tensor, aten.masked_fill.Tensor, aten.masked_fill_.Tensor}
"""Operations that, like all those done element by element, take a CPU tensor without dimensions as a number."""
WAITS = {
    aten._local_scalar_dense.default: "item",
    aten.is_nonzero.default: "item",
    aten.equal.default: "equal",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "boolean mask",
    aten.repeat_interleave.Tensor: "repeat_interleave",
    aten._unique2.default: "unique",
    aten.unique_dim.default: "unique",
    aten.bincount.default: "bincount",
    aten.linalg_inv_ex.default: "inverse",
    aten._linalg_det.default: "determinant",
    aten._linalg_solve_ex.default: "solve",
}
"""Operations whose outcome, its shape or its success, the host must know before it can go on."""
MASKS = (torch.bool, torch.uint8)


class ShamTensor(torch.Tensor):
    """A tensor on the sham device; `numbers` is the plain tensor that it stands for."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor, requires_grad: bool = False) -> ShamTensor:
        assert type(numbers) is torch.Tensor, type(numbers)
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            layout=numbers.layout,
            device=torch.device("meta"),
            requires_grad=requires_grad,
        )
        tensor.numbers = numbers
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return perform(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]

    def get_device(self) -> int:
        return 0

    def data_ptr(self) -> int:
        return self.numbers.data_ptr()

    def tolist(self) -> Any:
        LEDGER.note("item")
        return self.numbers.tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()

    def pin_memory(self, *args: Any, **kwargs: Any) -> Tensor:
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")

    def __repr__(self, **kwargs: Any) -> str:  # type: ignore[override]
        return f"ShamTensor({tuple(self.shape)}, {self.dtype})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Save the numbers; `SavedAsCuda` lets the file say that they were on cuda:0."""
        numbers = self.numbers.detach()
        SavedAsCuda.of_the_device.add(numbers.untyped_storage().data_ptr())
        return numbers.__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copy = ShamTensor(self.numbers.detach().clone(), self.requires_grad)
            is_parameter = isinstance(self, torch.nn.Parameter)
            memo[id(self)] = torch.nn.Parameter(copy, self.requires_grad) if is_parameter else copy
        return memo[id(self)]


class SavedAsCuda:
    """torch.save's note of where a storage was, for storages of the sham device."""

    of_the_device: set[int] = set()  # noqa: RUF012  (one for the process)

    @classmethod
    def tag(cls, storage: Any) -> str | None:
        """Return "cuda:0" for a storage of a sham tensor, None for another."""
        return "cuda:0" if storage.data_ptr() in cls.of_the_device else None

    @staticmethod
    def restore(storage: Any, location: str) -> None:
        """Leave loading to torch: all that loads a checkpoint here says to which device."""
        return None


def plain(value: Any) -> Any:
    """Return the numbers of a sham tensor, and anything else as it is."""
    return value.numbers if isinstance(value, ShamTensor) else value


def tensors_in(values: Sequence[Any]) -> list[Tensor]:
    """Return the tensors among an operation's arguments and in lists of them; torch's tree functions take longer."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_in(value)
    return found


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to an argument or a result of an operation, or to all that it is a list of."""
    if isinstance(value, list | tuple):
        return type(value)([mapped(function, part) for part in value])
    return function(value)


def is_cuda(device: Any) -> bool:
    """Tell whether a device, however it is given, is the sham one; C++ calls it "meta"."""
    return device is not None and not isinstance(device, bool) and torch.device(device).type in ("cuda", "meta")


def size_of(tensor: Tensor) -> int:
    """Return the bytes of a tensor's numbers."""
    return tensor.numel() * tensor.element_size()


def perform(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run an operation as CUDA would: refuse mixed devices, note what the host waits for, place what comes out.

    Raises:
        RuntimeError: if CUDA would not run it, because of the devices of its tensors.
        NotImplementedError: if it changes a sham tensor's shape in place.
    """
    if func is torch.ops.prim.device.default:
        return CUDA
    tensors = tensors_in((*args, *kwargs.values()))
    shams = [tensor for tensor in tensors if isinstance(tensor, ShamTensor)]
    wanted = kwargs.get("device")
    on_device = is_cuda(wanted) if wanted is not None else bool(shams)
    if func in COPIES:
        note_copy(func, args, kwargs, on_device)
    elif shams:
        refuse_mixture(func, args, tensors)
        if func in WAITS:
            LEDGER.note(WAITS[func])
    if wanted is not None:
        kwargs = {**kwargs, "device": CPU}
    numbers = {name: mapped(plain, value) for name, value in kwargs.items()}
    result = func(*(mapped(plain, value) for value in args), **numbers)
    written = written_arguments(func, args, kwargs)
    if written:
        for tensor in written:
            if isinstance(tensor, ShamTensor) and tensor.shape != tensor.numbers.shape:
                raise NotImplementedError(f"The sham device cannot change a shape in place: {func}.")
        return written[0] if len(written) == 1 else tuple(written)
    return mapped(lambda x: ShamTensor(x) if type(x) is torch.Tensor else x, result) if on_device else result


def note_copy(func: Any, args: Sequence[Any], kwargs: dict[str, Any], on_device: bool) -> None:
    """Note a copy from one device to the other; one from pinned memory, if asked for, makes nobody wait."""
    source = args[1] if func is aten.copy_.default else args[0]
    to_device = isinstance(args[0], ShamTensor) if func is aten.copy_.default else on_device
    if isinstance(source, ShamTensor) == to_device:
        return
    non_blocking = kwargs.get("non_blocking") or (func is aten.copy_.default and len(args) > 2 and args[2])
    if not (non_blocking and to_device and source.is_pinned()):
        LEDGER.note("upload" if to_device else "download", size_of(source))


def refuse_mixture(func: Any, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    """Refuse tensors of both devices, but for CPU indices and for CPU tensors that stand for a number.

    Raises:
        RuntimeError: in the cases where CUDA does.
    """
    strangers = [tensor for tensor in tensors if not isinstance(tensor, ShamTensor)]
    if func in INDEXING:
        indices = [index for index in args[1] if index is not None]
        from_host = [index for index in indices if not isinstance(index, ShamTensor)]
        values = args[2] if len(args) > 2 else None
        if isinstance(args[0], ShamTensor) and (values is None or isinstance(values, ShamTensor) or values.dim() == 0):
            if from_host:
                LEDGER.note("upload", sum(size_of(index) for index in from_host))
            if any(index.dtype in MASKS for index in indices):
                LEDGER.note("boolean mask")
            return
    elif torch.Tag.pointwise in func.tags or func in TAKES_A_NUMBER:
        strangers = [tensor for tensor in strangers if tensor.dim() > 0]
    if strangers:
        found = ", ".join(f"{'cuda:0' if isinstance(t, ShamTensor) else 'cpu'} {tuple(t.shape)}" for t in tensors)
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"({func}: {found})"
        )


def written_arguments(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """Return the arguments that an operation writes to and returns, in order."""
    if not any(value.alias_info is not None and value.alias_info.is_write for value in func._schema.returns):
        return []
    return [
        args[place] if place < len(args) else kwargs[argument.name]
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


class Operations(TorchDispatchMode):
    """Sends operations without a sham argument, such as torch.zeros(device="cuda"), through `perform` too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return perform(func, args, kwargs or {})
