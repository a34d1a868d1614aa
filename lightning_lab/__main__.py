"""``lightning-lab VERB ...``: one table from verb to handler. What needs no torch does not import it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType

from lightning_lab import __version__

#: verb: (module, function, one line for --help). The verbs of the first block get their name as first argument.
_VERBS = {
    "fit": ("lightning_lab.verbs", "run", "train a net; `fit` alone trains LeNet-5 on the bundled digits in seconds"),
    "validate": ("lightning_lab.verbs", "run", "measure a checkpoint on the validation data"),
    "test": ("lightning_lab.verbs", "run", "measure a checkpoint on the test data"),
    "predict": ("lightning_lab.verbs", "run", "write predictions.csv for a folder of images"),
    "configs": ("lightning_lab.shipped", "main", "list the shipped configurations"),
    "runs": ("lightning_lab.runs.listing", "main", "list runs; `runs show RUN`, `runs diff A B`"),
    "runs fork": ("lightning_lab.fork", "main", "a new run that goes on from where another one is, with changes"),
    "study": ("lightning_lab.studies.main", "main", "compare settings over seeds; `study --help`"),
    "schedule": ("lightning_lab.schedule", "main", "the learning rate over a whole run, before it is trained"),
    "augment": ("lightning_lab.augment_sheet", "main", "training images before and after each augmentation"),
    "export": ("lightning_lab.export", "main", "a run's net as ONNX, safetensors or torch.export"),
    "doctor": ("lightning_lab.doctor", "main", "what this machine has; --resume, --parity: rehearse a run"),
}
_TRAINER_VERBS = ("fit", "validate", "test", "predict")


def main(args: list[str]) -> int:
    """Run one command.

    Args:
        args: The command line without the program's name.

    Returns:
        The exit code: 0 done, 2 bad input, 4 diverged, 130 SIGINT, 143 SIGTERM, 1 a bug.
    """
    if not args or args[0] in ("--help", "-h", "help"):
        print(_help())
        return 0
    if args[0] in ("--version", "-V"):
        print(f"lightning-lab {__version__}")
        return 0
    from lightning_lab.runs.errors import InputError, LostProcessError, Stopped, unknown

    words = 2 if " ".join(args[:2]) in _VERBS else 1
    verb, rest = " ".join(args[:words]), args[words:]
    try:
        if verb not in _VERBS:
            raise InputError(unknown("verb", verb, _VERBS))
        with _signals(Stopped):
            module, function, _ = _VERBS[verb]
            handler = getattr(import_module(module), function)
            code: int = handler(verb, rest) if verb in _TRAINER_VERBS else handler(rest)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except LostProcessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Stopped as stop:
        return 128 + stop.number
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        sys.stderr.close()
        return 0
    return code


@contextmanager
def _signals(stopped: Callable[[signal.Signals], BaseException]) -> Iterator[None]:
    # As Python does with SIGINT: files and locks are given back on the way out, and the exit code is ours. A training
    # has a finer way, between two steps.
    def stop(number: int, frame: FrameType | None) -> None:
        raise stopped(signal.Signals(number))

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    if hasattr(signal, "SIGUSR1"):  # asks a training to save, and would end everything else
        before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def entry() -> None:
    """Run the command line of this process: the console script ``lightning-lab``."""
    # As `python -m` does, so that a class_path can name a module in the current folder.
    # By its name: the parser changes into the folder of each configuration.
    sys.path.insert(0, str(Path.cwd()))
    code = main(sys.argv[1:])
    if code == 128 + signal.SIGTERM:
        # All is saved. A launcher such as torchrun signals again when the first of its processes has ended, and that is
        # not to change the exit code in the last moments of the interpreter.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(code)


def _help() -> str:
    verbs = "\n".join(f"  {verb:<9} {line}" for verb, (_, _, line) in _VERBS.items())
    return f"""usage: lightning-lab VERB [options]

A laboratory for neural networks: one YAML is a run, one command trains it, nothing is ever lost.

verbs:
{verbs}

start here:
  lightning-lab fit                                    train; the record goes to logs/
  lightning-lab fit --config cifar10/lenet5 --help     every setting of a verb
  lightning-lab fit --config cifar10/lenet5 --data.root DIR --then test
  lightning-lab runs                                   what has been run
  tensorboard --logdir logs                            the curves

exit codes: 0 done, 2 bad input, 4 diverged, 130 SIGINT, 143 SIGTERM, 1 a bug"""


if __name__ == "__main__":
    entry()
