"""torch's functions that never come to `device.perform`, or come too late, because C++ answers them by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sham_cuda.device import CUDA, ShamTensor, is_cuda, plain, size_of
from sham_cuda.ledger import LEDGER


def from_values(func: Callable[..., Any], *args: Any, device: Any = None, **options: Any) -> Any:
    """Build a tensor from Python's numbers or NumPy's: on the host, and for the device it is then uploaded."""
    if not is_cuda(device):
        return func(*args, device=device, **options) if device is not None else func(*args, **options)
    if isinstance(args[0], ShamTensor):
        return func(*args, **options)
    requires_grad = options.pop("requires_grad", False)
    numbers = func(*args, **options)
    LEDGER.note("upload", size_of(numbers))
    return ShamTensor(numbers, requires_grad)


def new_tensor(func: Callable[..., Any], like: Tensor, data: Any, **options: Any) -> Any:
    """Build a tensor from values on another one's device."""
    if not isinstance(like, ShamTensor):
        return func(like, data, **options)
    return from_values(torch.tensor, data, **{"dtype": like.dtype, "device": CUDA, **options})


def set_data(func: Callable[..., Any], tensor: Tensor, value: Tensor) -> None:
    """Assign to .data, which CUDA allows between tensors of one device only.

    Raises:
        RuntimeError: if they are on two.
    """
    if isinstance(tensor, ShamTensor) != isinstance(value, ShamTensor):
        raise RuntimeError(
            "Attempted to call `variable.set_data(tensor)`, but `variable` and `tensor` have incompatible tensor type: "
            f"{tensor.device} and {value.device}."
        )
    func(tensor, value)
    if isinstance(tensor, ShamTensor):
        tensor.numbers = plain(value)


def to(func: Callable[..., Any], tensor: Tensor, *args: Any, **options: Any) -> Any:
    """Return a tensor itself where it is already as wanted; C++ compares with "meta" and would copy it.

    A device without its number would have C++ look for it on a GPU.
    """
    target = options.get("device", args[0] if args else None)
    if not isinstance(target, str | torch.device) or not is_cuda(target):
        return func(tensor, *args, **options)
    if not isinstance(tensor, ShamTensor):
        if "device" in options:
            return func(tensor, *args, **{**options, "device": CUDA})
        return func(tensor, CUDA, *args[1:], **options)
    rest = [value for value in args[1:] if isinstance(value, torch.dtype)]
    dtype = options.get("dtype") or (rest[0] if rest else tensor.dtype)
    return tensor if dtype == tensor.dtype and not options.get("copy") else func(tensor, dtype)


def cuda(func: Callable[..., Any], tensor: Tensor, *args: Any, **options: Any) -> Any:
    """Bring a tensor to the device."""
    return to(torch.Tensor.to, tensor, CUDA)


REPLACED: dict[Any, Callable[..., Any]] = {
    torch.tensor: from_values,
    torch.as_tensor: from_values,
    torch.Tensor.new_tensor: new_tensor,
    torch.Tensor.to: to,
    torch.Tensor.cuda: cuda,
}


class Functions(TorchFunctionMode):
    """Puts the functions above in the place of torch's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == torch.Tensor.data.__set__:  # type: ignore[attr-defined]
            return set_data(func, *args)
        replacement = REPLACED.get(func)
        return func(*args, **kwargs) if replacement is None else replacement(func, *args, **kwargs)
