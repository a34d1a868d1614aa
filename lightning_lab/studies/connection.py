"""The way to a Dask cluster that others run: reach its scheduler, wait for workers, see that they fit, tell who goes.

Dask itself takes any worker, warns of other versions, and waits in silence.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning_lab.runs.errors import InputError, LostProcessError
from lightning_lab.runs.terminal import say
from lightning_lab.studies.worker import is_leaving, shortcomings

#: How long the scheduler may take to answer.
CONNECT_S = 20
#: What has to be the same everywhere, beside Python: cells are compared, and Dask's ends have to understand each other.
PACKAGES = ("lightning-lab", "lightning", "torch", "distributed", "dask")
#: How often a cell's worker may be lost; a cell that takes workers down is stopped by its own count of crashes.
_ALLOWED_FAILURES = 100
_LOOK_S = 2.0
#: More workers with the same fault are counted.
_MOST_NAMED = 3


@contextmanager
def connected(address: str, *, study: Path | None) -> Iterator[Any]:
    """Connect to a Dask scheduler that has workers, and watch over them.

    Args:
        address: For example ``tcp://host:8786``.
        study: The study's folder, whose lock is held; None asks nothing of the workers but their versions.

    Yields:
        The Dask client.

    Raises:
        InputError: If nothing answers at the address, or its workers cannot take part.
        LostProcessError: If the scheduler is lost.
    """
    from distributed import KilledWorker
    from distributed.comm.core import CommClosedError
    from distributed.utils import silence_logging_cmgr

    # What Dask logs of a lost connection are pages of tracebacks; what matters is said here.
    with silence_logging_cmgr(logging.CRITICAL), _client(address) as client:
        try:
            _allow_failures(client)
            here = _versions_here()
            _refuse(address, "The scheduler", _scheduler_faults(client, address, here))
            workers = _Workers(client, address, study, here)
            workers.wait()
            workers.check()
            with workers.watched():
                yield client
        except (CancelledError, KilledWorker, CommClosedError) as error:
            why = "" if isinstance(error, CancelledError) else f" ({_first_line(error)})"
            raise LostProcessError(
                f"The connection to the scheduler {address} was lost{why}. Cells that run save or go on; start "
                "the scheduler again if it is gone. The same command takes the study up again."
            ) from error


def _client(address: str) -> Any:
    from distributed import Client
    from distributed.versions import VersionMismatchWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionMismatchWarning)  # said below, of what matters
        try:
            asyncio.run(_reach(address))
            return Client(address, timeout=f"{CONNECT_S}s")  # type: ignore[no-untyped-call]
        except Exception as error:  # whatever another server's answer is taken for
            raise InputError(
                f"`scheduler`: no Dask scheduler answers at {address} ({_first_line(error)}). It is written "
                "tcp://HOST:PORT, as `dask scheduler` prints it; docs/clusters.md shows how to start one."
            ) from error


async def _reach(address: str) -> None:
    # Not left to the client: one that cannot connect keeps a thread, which can stop the next one for ever when it is
    # collected within its start.
    from distributed.comm.core import connect
    from distributed.security import Security

    security = Security().get_connection_args("client")  # type: ignore[no-untyped-call]
    comm = await connect(address, timeout=CONNECT_S, **security)  # type: ignore[no-untyped-call]
    await comm.close()


def _allow_failures(client: Any) -> None:
    def allow(number: int, dask_scheduler: Any = None) -> None:  # pickled by value: the scheduler may lack this module
        dask_scheduler.allowed_failures = max(number, dask_scheduler.allowed_failures)

    client.run_on_scheduler(allow, _ALLOWED_FAILURES)


class _Workers:
    """Who is there, and whether they fit."""

    def __init__(self, client: Any, address: str, study: Path | None, here: Mapping[str, str]) -> None:
        self._client = client
        self._address = address
        self._study = study
        self._here = here
        self._known: dict[str, int] = {}
        self._end = threading.Event()

    def wait(self) -> None:
        """Wait for the first worker, however long a queue takes to start it."""
        self._known = self._client.nthreads()
        if not self._known:
            _tell(f"Waiting for workers: none is connected to {self._address} yet. Ctrl-C stops.")
        while not self._known:
            self._end.wait(_LOOK_S / 4)
            self._known = self._client.nthreads()
        _tell(f"Scheduler {self._address}: {_crowd(self._known)}.")

    def check(self) -> None:
        """Refuse to begin with workers that cannot take part."""
        _refuse(self._address, "Workers", self._unfit(list(self._known)))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Tell who comes and goes, and send away who comes later and cannot take part."""
        thread = threading.Thread(target=self._watch, name="workers", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _watch(self) -> None:
        while not self._end.wait(_LOOK_S):
            with suppress(Exception):  # a lost scheduler is told by the cells' futures
                now: dict[str, int] = self._client.nthreads()
                unfit = self._unfit([worker for worker in now if worker not in self._known])
                for worker, faults in unfit.items():
                    _tell(f"The worker {worker} {faults[0]}. It is sent away.")
                    del now[worker]
                if unfit:
                    self._client.retire_workers(list(unfit))
                if now.keys() != self._known.keys():
                    _tell(changes(self._known, now))
                self._known = now

    def _unfit(self, workers: Sequence[str]) -> dict[str, list[str]]:
        from distributed.versions import get_versions

        if not workers:
            return {}
        found = self._client.run(get_versions, packages=PACKAGES, workers=list(workers), on_error="return")
        unfit = _other_versions({name: one.get("packages", {}) for name, one in found.items()}, self._here)
        if self._study is None or unfit:
            return unfit
        found = self._client.run(
            shortcomings, str(self._study.absolute()), str(Path.cwd()), workers=list(workers), on_error="return"
        )
        return {name: _faults(answer) for name, answer in found.items() if answer}


def changes(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """Say who came and who went.

    Args:
        before: The threads of each worker.
        now: The same, later.

    Example:
        >>> changes({"a": 1, "b": 1}, {"b": 1, "c": 2})
        '1 worker joined, 1 is gone and its cells go on elsewhere: 2 workers, 3 cells at once.'
        >>> changes({"a": 1}, {})
        '1 worker is gone and its cells go on elsewhere: no worker is left; waiting for new ones.'
    """
    came, went = len(now.keys() - before.keys()), len(before.keys() - now.keys())
    parts = [f"{came} worker{'s' * (came > 1)} joined"] if came else []
    if went:
        whose = "its" if went == 1 else "their"
        noun = "" if came else f" worker{'s' * (went > 1)}"
        parts.append(f"{went}{noun} {'is' if went == 1 else 'are'} gone and {whose} cells go on elsewhere")
    return f"{', '.join(parts)}: {_crowd(now) if now else 'no worker is left; waiting for new ones'}."


def _crowd(workers: Mapping[str, int]) -> str:
    cells = sum(workers.values())
    return f"{len(workers)} worker{'s' * (len(workers) > 1)}, {cells} cell{'s' * (cells > 1)} at once"


def _versions_here() -> dict[str, str]:
    from distributed.versions import get_versions

    return _plain(get_versions(packages=PACKAGES)["packages"])


def _scheduler_faults(client: Any, address: str, here: Mapping[str, str]) -> dict[str, list[str]]:
    from distributed.versions import get_versions

    packages = client.run_on_scheduler(get_versions, packages=PACKAGES)["packages"]
    # It trains nothing, but reads what is submitted, which names this package.
    packages = {name: packages[name] for name in packages if name not in ("torch", "lightning")}
    try:
        client.run_on_scheduler(is_leaving)
    except Exception as error:
        return {address: _faults(error)}
    return _other_versions({address: packages}, here)


def _plain(packages: Mapping[str, str | None]) -> dict[str, str]:
    # What follows a + is the build (CPU, CUDA); of Python's versions the first two numbers matter.
    plain = {name: (packages[name] or "missing").partition("+")[0] for name in PACKAGES if name in packages}
    return plain | {"python": ".".join((packages.get("python") or "missing").split(".")[:2])}


def _other_versions(found: Mapping[str, Mapping[str, Any]], here: Mapping[str, str]) -> dict[str, list[str]]:
    differ = {}
    for name, packages in found.items():
        words = [f"{one} {has}, here {here[one]}" for one, has in _plain(packages).items() if has != here[one]]
        if words:
            differ[name] = [f"has other versions: {'; '.join(words)}"]
    return differ


def _refuse(address: str, who: str, unfit: Mapping[str, Sequence[str]]) -> None:
    if not unfit:
        return
    by_fault: dict[str, list[str]] = {}
    for name, faults in unfit.items():
        by_fault.setdefault("; ".join(faults), []).append(name)
    lines = []
    for fault, names in by_fault.items():
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        lines.append(f"  {', '.join(names[:_MOST_NAMED])}{more}: {fault}")
    raise InputError(
        f"`scheduler` {address}: {who} cannot take part.\n" + "\n".join(lines) + "\nMend or stop them, then repeat the "
        "command; docs/clusters.md says what all machines need."
    )


def _faults(answer: list[str] | Exception) -> list[str]:
    if isinstance(answer, Exception):
        return [f"cannot be asked ({_first_line(answer)}): install the same lightning_lab everywhere"]
    return answer


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _tell(text: str) -> None:
    say(text, sys.stderr)
