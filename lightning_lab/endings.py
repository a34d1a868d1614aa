"""How a command ends that does not end well: what the user is told, in one message, and the exit code."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_lab.cli import LabCLI
from lightning_lab.runs.errors import DivergedError, InputError, LostProcessError, NotWrittenError, Stopped, unknown
from lightning_lab.runs.files import write_text
from lightning_lab.runs.terminal import say

#: What to do about a disk, by the number of its error.
_REMEDIES = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space, or have your quota raised",
    errno.EFBIG: "Raise the limit on the size of a file (ulimit -f)",
    errno.EROFS: "The disk can only be read: mount it for writing",
    errno.EACCES: "Make it writable",
    errno.EPERM: "Make it writable",
    errno.EIO: "The disk or its connection has failed: see to it",
    errno.ESTALE: "The disk's server has lost it: mount it again",
    errno.ENOENT: "Its folder was deleted or moved: put it back",
}
#: Errors that no reading gives.
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def end(error: BaseException, cli: LabCLI | None) -> int:
    """Tell what happened.

    Args:
        error: What ended the command, while it is being handled.
        cli: The command's parts; None where they could not be built.

    Returns:
        The exit code: 2 bad input, 4 diverged, 128 and the number of a signal, 1 a bug or a lost process.

    Raises:
        SystemExit: If that is the error, and not Lightning's word for Ctrl-C.
    """
    if isinstance(error, SystemExit):
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise error
        error = error.__context__
    if isinstance(error, LostProcessError):
        return _say(f"{error} {_way_on(cli)}", 1)
    if isinstance(error, DivergedError):
        return _say_once(cli, str(error), 4)
    if isinstance(error, Stopped):
        return _say_once(cli, f"{error} {_way_on(cli)}", 128 + error.number)
    if isinstance(error, KeyboardInterrupt):
        return _say(f"Stopped by SIGINT. {_way_on(cli)}", 130)
    if isinstance(error, ValueError | OSError | MisconfigurationException):
        if isinstance(error, OSError) and (told := _disk_error(error, cli)):
            return _say(f"error: {told}", 2)
        if not isinstance(error, InputError):
            _keep_traceback(cli)
        return _say(f"error: {_reword(str(error))}", 2)
    traceback.print_exc()
    _keep_traceback(cli)
    return _say(f"internal error: {type(error).__name__}: {error}. This is a bug of lightning_lab.", 1)


def _way_on(cli: LabCLI | None) -> str:
    if cli is None or not hasattr(cli, "run_directory"):
        return "Nothing was saved yet."
    return cli.run_directory.way_on


def _reword(message: str) -> str:
    # Lightning's word for a monitor that is never logged, where a module of the user's own does not say its metrics.
    match = re.search(r"monitor='([^']+)'\)` could not find the monitored key in .*?: \[(.*?)\]", message)
    if match is None:
        return message
    logged = [name.strip("' ") for name in match[2].split(",") if name.strip("' ") not in ("epoch", "step")]
    return f"`checkpoint.monitor`: {unknown('metric', match[1], logged)}"


def _disk_error(error: OSError, cli: LabCLI | None) -> str | None:
    if not isinstance(error, NotWrittenError) and error.errno not in _OF_WRITING:
        return None  # nothing says that it is about the record
    while isinstance(error.__context__, NotWrittenError):  # the last words failed too; what failed first is told
        error = error.__context__
    what = f": {_short(error.filename)} could not be written" if error.filename else ""
    remedy = _REMEDIES.get(error.errno or 0, "See to it")
    again = "repeat the command."
    # Not "the same command": without --run.name that one begins a run of its own.
    if cli is not None and cli.verb == "fit" and hasattr(cli, "run_directory") and cli.run_directory.can_continue:
        again = f"continue with: lightning-lab fit --config {_short(str(cli.run_directory.config))}"
    return f"{error.strerror}{what}. {remedy}, then {again}"


def _short(path: str) -> str:
    # Lightning makes paths absolute.
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path


def _say_once(cli: LabCLI | None, text: str, code: int) -> int:
    # All processes of a run end with it, and one says it.
    return _say(text, code) if cli is None or not hasattr(cli, "trainer") or cli.trainer.is_global_zero else code


def _say(text: str, code: int) -> int:
    say(text, sys.stderr)
    return code


def _keep_traceback(cli: LabCLI | None) -> None:
    if cli is not None and hasattr(cli, "run_directory") and cli.run_directory.config.exists():
        with suppress(OSError):  # the disk that is full, or gone, may be what it tells of
            write_text(cli.run_directory.traceback, traceback.format_exc())
