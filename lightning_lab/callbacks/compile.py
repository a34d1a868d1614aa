"""torch.compile for the net of a run, or a word on why it cannot be."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn


class Compile(Callback):
    """Compile the net in place when the training begins.

    The net alone, and not the LightningModule around it: that would break its logging on some versions of torch. In
    place, so that the names of the weights in checkpoints stay as they are.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the net; the first batch of each shape compiles it."""
        missing = missing_compiler(pl_module.device.type)
        if missing is not None:
            rank_zero_warn(f"`compile` needs {missing}, which is not on this machine: the net runs as it is.")
            return
        net = getattr(pl_module, "net", None)
        if net is None:
            rank_zero_warn(f"`compile` had no effect: {type(pl_module).__name__} has no `net`.")
            return
        net.compile()


def missing_compiler(device: str) -> str | None:
    """Say what `torch.compile` lacks on this machine for a kind of device, or None if nothing."""
    if device == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "Triton"
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception:  # torch's own type for it is private
        return "a C++ compiler (g++ or clang++)"
    return None
