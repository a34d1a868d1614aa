"""Let a net compute its first layer from training images before the training begins."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_lab.runs.errors import InputError


class Whitening(Callback):
    """Call the net's `whiten` with training images, once, ahead of the first step.

    A run that continues has its first layer in the checkpoint. The images are normalised as the net will see them, and
    not augmented.

    Args:
        num_images: How many images are looked at, at least 1000.

    Raises:
        ValueError: If `num_images` is below 1000.
        InputError: If the net has no method `whiten`, or the loader no method `sample`.
    """

    def __init__(self, num_images: int = 5000) -> None:
        if num_images < 1000:
            raise ValueError(f"`num_images` must be at least 1000, got {num_images}.")
        self.num_images = num_images

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Whiten, unless the run continues."""
        if trainer.global_step > 0:
            return
        net = getattr(pl_module, "net", None)
        whiten = getattr(net, "whiten", None)
        if whiten is None:
            raise InputError(
                f"The callback Whitening needs a net with a method `whiten`, as SpeedNet has; {type(net).__name__} has "
                "none. Leave the callback out."
            )
        sample = getattr(trainer.train_dataloader, "sample", None)
        if sample is None:
            name = type(trainer.train_dataloader).__name__
            raise InputError(f"The callback Whitening needs a loader with a method `sample`; {name} has none.")
        whiten(sample(self.num_images))
