"""The verb ``doctor``: what this machine has, what follows from it, and whether a run keeps two promises here."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from lightning_lab import __version__
from lightning_lab.runs.arguments import Parser
from lightning_lab.runs.cache_folder import cache_folder
from lightning_lab.runs.environment import hardware, versions


def main(args: list[str]) -> int:
    """Print the report, or rehearse a run.

    Args:
        args: What follows ``doctor`` on the command line.

    Returns:
        The exit code; 1 if a rehearsal does not end as it should.
    """
    parser = Parser(
        prog="lightning-lab doctor",
        usage="lightning-lab doctor [--brief | --resume [--kills N] [--seed N] | --parity] [what follows fit]",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--brief", action="store_true", help="only what needs no torch: answers at once")
    modes.add_argument("--resume", action="store_true", help="kill a short run at random, continue it, compare")
    modes.add_argument("--parity", action="store_true", help="train a short run with one process and two, compare")
    parser.add_argument("--kills", type=int, default=3, metavar="N", help="with --resume: how many times (default: 3)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="with --resume: of the random moments")
    options, arguments = parser.parse_known_args(args)
    if options.kills < 1:
        parser.error(f"argument --kills: must be at least 1, got {options.kills}")
    if options.resume or options.parity:
        from lightning_lab.rehearsal import verdicts

        if options.parity:
            return verdicts.parity_verdict(arguments)
        return verdicts.resume_verdict(arguments, kills=options.kills, seed=options.seed)
    if arguments:
        parser.error(f"unrecognized arguments: {' '.join(arguments)}")
    _print_report(brief=options.brief)
    return 0


def _print_report(*, brief: bool) -> None:
    if not brief:
        import torch  # noqa: F401 - `hardware` reports what it sees once torch is there
    machine = hardware()
    memory = machine["memory_bytes"]
    print(f"lightning-lab {__version__}, Python {sys.version.split()[0]}")
    print("  " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    print("machine")
    print(f"  {machine['processor']}, {machine['cores']} cores, {memory / 2**30 if memory else 0:.0f} GiB memory")
    print(f"  bf16 units of the processor: {machine['bf16_units']}")
    print(f"  free disk here: {shutil.disk_usage('.').free / 2**30:.0f} GiB")
    if not brief:
        _print_torch()
    print("data")
    root = Path(os.environ.get("LIGHTNING_LAB_DATA") or "data")
    origin = "$LIGHTNING_LAB_DATA" if os.environ.get("LIGHTNING_LAB_DATA") else "the default"
    print(f"  digits: bundled\n  CIFAR-10: {_cifar10(root)} (looked in {root}, {origin})")
    print(f"  decoded images: {_decoded_images()}")


def _print_torch() -> None:
    import torch
    from torch import nn

    from lightning_lab.arithmetic import choose_precision, choose_threads
    from lightning_lab.callbacks.compile import missing_compiler

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print("defaults")
    if gpus:
        print(f"  accelerator: GPU ({', '.join(gpus)}); several: --config trainer/ddp")
    else:
        print("  accelerator: CPU, because torch sees no GPU")
    device = "cuda" if gpus else "cpu"
    kinds = {"with convolutions": nn.Conv2d(3, 16, 3), "of dense layers": nn.Linear(256, 10)}
    for what, net in kinds.items():
        precision, why = choose_precision(net, device)
        print(f"  precision: {precision} for nets {what}; {why}")
    for what, net in kinds.items():
        threads, why = choose_threads(net, batch_size=64)
        print(f"  threads: {threads} for nets {what}; {why}")
    print("  images and convolutions channels-last; optimisers with their fused step, where they have one")
    lacks = missing_compiler(device)
    print(f"  torch.compile: off; {f'it lacks {lacks}' if lacks else 'it can be used'}")
    print("  switches: --trainer.precision, --run.threads, --channels_last, --model.optimizer.fused, --compile")


def _cifar10(root: Path) -> str:
    if (root / "cifar-10-batches-py").is_dir():
        missing = [name for name in _OFFICIAL if not (root / "cifar-10-batches-py" / name).is_file()]
        return f"official files, {len(missing)} missing" if missing else "official files, complete by name"
    if (root / "train").is_dir() and (root / "test").is_dir():
        counts = [sum(1 for folder in (root / part).iterdir() if folder.is_dir()) for part in ("train", "test")]
        return f"an image tree with {counts[0]} and {counts[1]} class folders"
    return "not there; fetch it with: lightning-lab fit --config cifar10/lenet5 --data.download true"


def _decoded_images() -> str:
    try:
        folder = cache_folder()
    except RuntimeError:
        return "not kept: there is no home directory ($LIGHTNING_LAB_CACHE names a folder)"
    size = sum(path.stat().st_size for path in folder.glob("images/*.pixels"))
    return f"{size / 1e6:.0f} MB in {folder} ($LIGHTNING_LAB_CACHE moves it; deleting it is safe)"


_OFFICIAL = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
_DESCRIPTION = """Tell what this machine has, what the defaults choose because of it, and where the data are.

With --resume or --parity: try out on a short version of your own run whether it keeps what is promised of every run.
--resume: killed at any moment (SIGKILL) and continued, it ends with the same bits. --parity: one process and two
measure the same up to rounding. Whatever follows is what would follow `fit`; a run is made short by
--trainer.max_epochs 2 --trainer.limit_train_batches 20 --trainer.limit_val_batches 3 (and for --resume
--checkpoint.every_n_steps 7), each of them only where you do not give it. Nothing is written to logs/.

examples:
  lightning-lab doctor
  lightning-lab doctor --resume                             the configuration digits/lenet5
  lightning-lab doctor --resume --kills 20 --config cifar10/vgg --data.root DIR --model.net.dropout 0.3
  lightning-lab doctor --resume --config my.yaml --trainer.max_epochs 3 --trainer.limit_train_batches 1.0
  lightning-lab doctor --parity --config cifar10/lenet5 --data.root DIR --trainer.max_epochs 5

exit codes: 0 done, or the promise is kept; 1 it is not; 2 bad input"""
