"""The verb ``doctor``: what this machine has, what the defaults choose because of it, and where the data are."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from lightning_lab import __version__
from lightning_lab.runs.arguments import Parser
from lightning_lab.runs.environment import hardware, versions


def main(args: list[str]) -> int:
    """Print the report.

    Args:
        args: What follows ``doctor`` on the command line.

    Returns:
        The exit code.
    """
    parser = Parser(
        prog="lightning-lab doctor",
        description="Tell what this machine has, what the defaults choose because of it, and where the data are.",
    )
    parser.add_argument("--brief", action="store_true", help="only what needs no torch: answers at once")
    options = parser.parse_args(args)
    if not options.brief:
        import torch  # noqa: F401 - `hardware` reports what it sees once torch is there
    machine = hardware()
    memory = machine["memory_bytes"]
    print(f"lightning-lab {__version__}, Python {sys.version.split()[0]}")
    print("  " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    print("machine")
    print(f"  {machine['processor']}, {machine['cores']} cores, {memory / 2**30 if memory else 0:.0f} GiB memory")
    print(f"  bf16 units of the processor: {machine['bf16_units']}")
    print(f"  free disk here: {shutil.disk_usage('.').free / 2**30:.0f} GiB")
    if not options.brief:
        _print_torch()
    print("data")
    root = Path(os.environ.get("LIGHTNING_LAB_DATA") or "data")
    origin = "$LIGHTNING_LAB_DATA" if os.environ.get("LIGHTNING_LAB_DATA") else "the default"
    print(f"  digits: bundled\n  CIFAR-10: {_cifar10(root)} (looked in {root}, {origin})")
    print(f"  decoded images: {_decoded_images()}")
    return 0


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
    # The rule of data.cache.cache_folder, which would import torch; a test holds the two together.
    own, base = os.environ.get("LIGHTNING_LAB_CACHE"), os.environ.get("XDG_CACHE_HOME")
    folder = Path(own or f"{base or '~/.cache'}/lightning_lab")
    with suppress(RuntimeError):  # a user without a home
        folder = folder.expanduser()
    size = sum(path.stat().st_size for path in folder.glob("images/*.pixels"))
    return f"{size / 1e6:.0f} MB in {folder} ($LIGHTNING_LAB_CACHE moves it; deleting it is safe)"


_OFFICIAL = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
