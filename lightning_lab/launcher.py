"""Lightning's launcher of processes, with a watch that ends a run one of whose processes was lost.

A process that waits for another one in a collective hears of its death at once from gloo. It does not where it computes
something else, where the other one died before they were connected, or on NCCL, which waits for half an hour. Lightning
lets the first process look after the ones it has started: every five seconds, and where one has failed it kills all,
itself too, so that a run which diverged or was told to stop loses its last words. Nobody looks after the first process.

Here each process looks after all others on its machine, whoever started them. It ends by itself, with what is to be
told and recorded, and is ended only if it has not done so some seconds later.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from lightning_lab.runs.agreement import everyones, tells_of_a_lost_process
from lightning_lab.runs.errors import DivergedError, LostProcessError, Stopped
from lightning_lab.runs.start import RUN_VARIABLE

#: How often the others are looked after.
_PERIOD_S = 0.5
#: How long a process has to end by itself, once another one is lost.
GRACE_S = 10.0
#: How long it takes at most until a process whose connection is closed is known to be dead.
_DEATH_S = 2.0
#: Set for the processes that the first one starts: its process id.
_FIRST_VARIABLE = "LIGHTNING_LAB_FIRST_PROCESS"

Leave = Callable[[LostProcessError], None]


def watch_processes(trainer: Trainer, leave: Leave) -> None:
    """Put the launcher in the place of Lightning's, where a run has several processes.

    Args:
        trainer: A new trainer, which has not started anything yet.
        leave: Called in a process that does not end by itself, from another thread than the training's: the last
            chance to record and to say why.
    """
    theirs = trainer.strategy.launcher
    if type(theirs) is not _SubprocessScriptLauncher:
        return
    launcher = Launcher(theirs, leave)
    trainer.strategy._launcher = launcher
    trainer.callbacks.append(_Acquaint(launcher))  # type: ignore[attr-defined]


class Launcher(_SubprocessScriptLauncher):
    """Start the processes as Lightning does, and look after them.

    Args:
        theirs: Lightning's launcher.
        leave: See :func:`watch_processes`.
    """

    def __init__(self, theirs: _SubprocessScriptLauncher, leave: Leave) -> None:
        super().__init__(theirs.cluster_environment, theirs.num_processes, theirs.num_nodes)
        self.leave = leave
        self.others: dict[int, int] = {}  # process id by rank, on this machine
        self._codes: dict[int, int] = {}  # how those ended that this process has started
        self._ending = False

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Start the other processes, unless somebody else has, and call `function`.

        Raises:
            LostProcessError: If another process ended before it should.
        """
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            shared = {_FIRST_VARIABLE: str(os.getpid()), RUN_VARIABLE: str(Path(trainer.default_root_dir).absolute())}
            os.environ.update(shared)
            self._call_children_scripts()
            for name in shared:  # another run of this process is none of theirs
                del os.environ[name]
            self.others = {rank: process.pid for rank, process in enumerate(self.procs, start=1)}
        elif int(os.environ.get("LOCAL_RANK", "0")) > 0 and _FIRST_VARIABLE in os.environ:
            self.others = {0: int(os.environ[_FIRST_VARIABLE])}
        over, self._ending = threading.Event(), False
        threading.Thread(target=self._watch, args=(over,), name="watch", daemon=True).start()
        try:
            result = function(*args, **kwargs)
        except (KeyboardInterrupt, Stopped, DivergedError):
            over.set()  # all of them end here, each in its own time
            raise
        except Exception as error:
            self._ending = True
            if not tells_of_a_lost_process(error):
                raise
            lost = LostProcessError(self._who() or "Another process of this run was lost. It may have said why.")
            self._end_others()
            raise lost from error
        over.set()
        return result

    def meet(self, node: int, everyone: list[tuple[int, int]]) -> None:
        """Take down the other processes of this machine.

        Args:
            node: The number of this machine.
            everyone: Machine and process id of each rank.
        """
        here = {rank: pid for rank, (where, pid) in enumerate(everyone) if where == node and pid != os.getpid()}
        # Each in a container of its own, they could not be seen from here.
        self.others = {rank: pid for rank, pid in here.items() if _lives(pid)} or self.others

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(_PERIOD_S):
            who = self._lost()
            if who is not None and not over.wait(GRACE_S):
                try:
                    if not self._ending:  # else it has said why, and something holds it up
                        self.leave(LostProcessError(who))
                finally:
                    self._kill_others()
                    os._exit(1)

    def _lost(self) -> str | None:
        self._reap()
        for rank, pid in self.others.items():
            code = self._codes.get(rank)
            if code == 0 or (code is None and _lives(pid)):
                continue
            if code is not None and code > 0:
                return f"Process {rank} of this run ended with code {code}. It may have said why."
            how = f" to {signal.Signals(-code).name}" if code is not None else ""
            return f"Process {rank} of this run was lost{how}."
        return None

    def _who(self) -> str | None:
        # A connection is closed a moment before the process is gone.
        deadline = time.monotonic() + _DEATH_S
        while (who := self._lost()) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return who

    def _reap(self) -> None:
        for rank, process in enumerate(self.procs, start=1):
            code = process.poll()
            if code is not None:
                self._codes[rank] = code

    def _end_others(self) -> None:
        # They have lost a process too, and end; one that was stopped or hangs does not.
        deadline = time.monotonic() + GRACE_S / 2
        while any(process.poll() is None for process in self.procs) and time.monotonic() < deadline:
            time.sleep(0.05)
        self._kill_others()

    def _kill_others(self) -> None:
        for process in self.procs:
            if process.poll() is None:
                process.kill()


class _Acquaint(Callback):
    """Tell all processes of each other, and let none leave before all have arrived at the end."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Exchange process ids."""
        if trainer.world_size > 1:
            self.launcher.meet(trainer.node_rank, everyones((trainer.node_rank, os.getpid())))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait for the slowest, which would take the others for lost."""
        trainer.strategy.barrier("the end")


def _lives(pid: int) -> bool:
    if os.name == "nt":
        return True  # there a signal 0 is Ctrl-C
    try:
        os.kill(pid, 0)
        # Dead, but its parent has not asked how it ended.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's, or a system without /proc
        return True
