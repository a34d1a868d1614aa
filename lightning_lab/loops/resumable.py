"""Lightning's training epoch with one place to save and to stop at: between two steps, when nothing is half done.

Lightning lets a callback save in the middle of a step or of a validation, and then guesses from its counters what was
done already; after some of them it skips a validation or a whole epoch's end. Here the state says what is due.

It builds on names that Lightning keeps to itself, which is one reason why its minor version is bounded.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop


@runtime_checkable
class ActsBetweenSteps(Protocol):
    """A callback that wants to be called between two steps."""

    def on_between_steps(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save or stop here: every counter and every weight belongs to the same step, and no gradient is waiting."""


class ResumableEpochLoop(_TrainingEpochLoop):
    """A training epoch that continues exactly where it stood between two steps, or in front of a validation."""

    _validation_due = False
    _between_steps = False  # whether a checkpoint that is made now is made between two steps
    _restarted_between_steps = False

    @property
    def max_steps(self) -> int:
        """The budget. Without end while a run that was stopped in its last validation still owes it."""
        owes = self._restarted_between_steps and self._validation_due
        return -1 if owes else self._max_steps

    @max_steps.setter
    def max_steps(self, steps: int) -> None:
        self._max_steps = steps

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Take up the epoch where the checkpoint left it."""
        self._load_loader_state(data_fetcher)
        super().on_run_start(data_fetcher)
        callbacks: list[Callback] = self.trainer.callbacks
        self._acting = [callback for callback in callbacks if isinstance(callback, ActsBetweenSteps)]
        if not (self.restarting and self._restarted_between_steps):
            return  # an epoch's end, or another one's checkpoint, which Lightning's own rules are for
        self._restarted_between_steps = False
        self.val_loop.restarting = False
        if self._validation_due:
            self._finish_step(data_fetcher)
        self.on_iteration_done()  # no longer restarting: what follows is an ordinary step

    def _should_check_val_fx(self, data_fetcher: _DataFetcher) -> bool:
        """Validate behind the run's last step too: a budget of steps ends with a measurement, as one of time does."""
        due: bool = super()._should_check_val_fx(data_fetcher)
        is_last = self.max_steps != -1 and self.global_step >= self.max_steps
        return due or (is_last and self.trainer.enable_validation)

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        """Validate where it is due; then give those who save or stop their turn."""
        self._validation_due = self._should_check_val_fx(data_fetcher) and not self._skip_next_val
        self._finish_step(data_fetcher)

    def _finish_step(self, data_fetcher: _DataFetcher) -> None:
        self._between_steps = True  # in the validation too: it changes nothing that a checkpoint holds
        super().on_advance_end(data_fetcher)
        self._validation_due = False
        if not self._should_accumulate():
            for callback in self._acting:
                callback.on_between_steps(self.trainer, self.trainer.lightning_module)
        self._between_steps = False

    def _load_loader_state(self, data_fetcher: _DataFetcher) -> None:
        # Who asks for the number of steps before the checkpoint is read (a schedule does) makes Lightning build the
        # loaders, and it gives them their state only where it builds them afterwards.
        fit_loop = self.trainer.fit_loop
        if self.restarting and fit_loop._combined_loader_states_to_load:
            fit_loop._load_combined_loader_states()
            iter(data_fetcher)

    def on_save_checkpoint(self) -> dict[str, Any]:
        """Say whether this is between two steps, and whether a validation is due before the next one."""
        state: dict[str, Any] = super().on_save_checkpoint()
        return {**state, "between_steps": self._between_steps, "validation_due": self._validation_due}

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        """Remember both."""
        super().on_load_checkpoint(state_dict)
        self._restarted_between_steps = state_dict.get("between_steps", False)
        self._validation_due = state_dict.get("validation_due", False)

    def _broadcast_sigterm_tensor(self) -> None:
        """Leave Lightning's exchange out: the processes agree between two steps on whether to stop."""
