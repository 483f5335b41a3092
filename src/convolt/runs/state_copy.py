"""A copy of a run's state, so that it can be written while training goes on."""

import copy
import threading
from typing import Any

import torch
from torch import Tensor

_CONSTANTS = {float, int, str, bool, type(None)}

_LATE_BYTES = 64 * 2**10
"""Tensors from this size on are copied by the thread that writes them: no smaller ones take the main thread long."""


class StateCopy:
    """Copies tensors into buffers that are used again by the next copy: pinned memory for those of a GPU.

    A GPU copies between what it was told before and after, and nobody waits for it. On a CPU, the large tensors are
    copied in `complete`, and may not change before `completed` is set.
    """

    def __init__(self) -> None:
        self.completed = threading.Event()
        self.completed.set()
        self._buffers: dict[tuple[Any, ...], Tensor] = {}
        self._late: list[tuple[Tensor, Tensor]] = []
        self._copied_by_gpu: torch.cuda.Event | None = None

    @torch.no_grad()
    def begin(self, state: dict[str, Any], *, at_once: bool) -> dict[str, Any]:
        """Return a copy of a state, which is whole after `complete`; the copy before is lost.

        Args:
            state: Nested dicts, lists and tuples of tensors and other values.
            at_once: Copy the large tensors of a CPU here too.
        """
        self._late, self._copied_by_gpu = [], None
        used: dict[tuple[Any, ...], Tensor] = {}
        copied: dict[str, Any] = self._copied(state, used, at_once)
        self._buffers = used
        if self._late:
            self.completed.clear()
        on_gpu = next((key[-1] for key in used if key[-1].type == "cuda"), None)
        if on_gpu is not None:
            self._copied_by_gpu = torch.cuda.current_stream(on_gpu).record_event()
        return copied

    @torch.no_grad()
    def complete(self) -> None:
        """Copy what is left, and wait for the GPU."""
        try:
            for buffer, source in self._late:
                buffer.copy_(source)
        finally:
            self._late = []
            self.completed.set()
        if self._copied_by_gpu is not None:
            self._copied_by_gpu.synchronize()

    def _copied(self, value: Any, used: dict[tuple[Any, ...], Tensor], at_once: bool) -> Any:
        if type(value) is Tensor and value.layout is torch.strided:
            return self._copied_tensor(value, used, at_once)
        if isinstance(value, dict):
            same = copy.copy(value)  # with the versions of the layers, which are attributes of a state_dict
            for name, each in value.items():
                if type(each) not in _CONSTANTS:
                    same[name] = self._copied(each, used, at_once)
            return same
        if type(value) in (list, tuple):
            return type(value)(
                each if type(each) in _CONSTANTS else self._copied(each, used, at_once) for each in value
            )
        return copy.deepcopy(value)

    def _copied_tensor(self, source: Tensor, used: dict[tuple[Any, ...], Tensor], at_once: bool) -> Tensor:
        key = (source.data_ptr(), source.shape, source.stride(), source.dtype, source.device)
        if key in used:  # weights that layers share stay shared
            return used[key]
        buffer = self._buffers.get(key)
        if buffer is None:
            buffer = torch.empty_like(source, device="cpu", pin_memory=source.is_cuda)
        used[key] = buffer
        if source.device.type == "cpu" and source.nbytes >= _LATE_BYTES and not at_once:
            self._late.append((buffer, source))
        else:
            buffer.copy_(source, non_blocking=source.is_cuda)
        return buffer
