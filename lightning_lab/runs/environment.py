"""What a run ran on and from: the content of environment.json. Free of torch unless torch is loaded already."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("lightning", "torch", "torchvision", "torchmetrics", "jsonargparse", "tensorboard", "numpy", "scipy")
_SOURCE = Path(__file__).resolve().parents[2]


def describe_environment() -> dict[str, Any]:
    """Collect commit, versions, hardware, threads and command line.

    Returns:
        A mapping that JSON can hold.
    """
    from lightning_lab import __version__

    commit, dirty = _commit(_SOURCE)
    return {
        "lightning_lab": __version__,
        "commit": commit,
        "dirty": dirty,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [sys.executable, *sys.argv],
        "folder": str(Path.cwd()),
        "python": platform.python_version(),
        "versions": versions(),
        "hardware": hardware(),
    }


def versions() -> dict[str, str]:
    """Look up the versions of the packages a result depends on, without importing them."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def hardware() -> dict[str, Any]:
    """Describe processor, memory and, where torch is loaded, its devices and threads."""
    known: dict[str, Any] = {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _cpu_field("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None,
        "bf16_units": bf16_units(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        known["threads"] = torch.get_num_threads()
        known["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return known


def bf16_units() -> str:
    """Name the processor's units for bf16 products: ``"amx"``, ``"avx512"`` or ``"none"``."""
    flags = set(_cpu_field("flags").split())
    if {"amx_bf16", "amx_tile"} <= flags:
        return "amx"
    return "avx512" if "avx512_bf16" in flags else "none"


def _cpu_field(name: str) -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    except OSError:
        pass  # not Linux: the caller falls back to `platform`
    return ""


def _commit(folder: Path) -> tuple[str | None, bool | None]:
    # An installed wheel has no commit; its version says what it is.
    if not (folder / ".git").exists():
        return None, None
    try:
        git = ["git", "-C", str(folder)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None, None
    return commit.stdout.strip(), bool(status.stdout.strip())
