"""What the engine of studies costs: 200 cells of one second of training, on the local cluster with warm processes.

Each cell trains an MLP on the bundled digits for one second (`seconds: 1`), by itself, with everything that a run
leaves behind. Overhead is what a cell takes of its place at work beyond that second: wall time times cells at once,
through the number of cells, minus one.

    python benchmarks/study_overhead.py             # 10 arms x 20 seeds
    python benchmarks/study_overhead.py --short     # 2 arms x 5 seeds
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml
from measure import print_conditions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--jobs", type=int, default=2, help="cells at once")
    options = parser.parse_args()
    arms, seeds = (2, 5) if options.short else (10, 20)
    levels = [round(0.05 * level, 2) for level in range(arms)]
    study = {
        "name": "overhead",
        "base": "digits/mlp",
        "reference": {"model.net.dropout": 0.0, "lr_schedule": None},
        "factors": {"model.net.dropout": levels},
        "seeds": seeds,
        "metric": "val/acc",
        "goal": "max",
        "seconds": 1,
    }
    torch.set_num_threads(1)  # as each cell has
    print_conditions()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "overhead.yaml").write_text(yaml.safe_dump(study))
        command = [sys.executable, "-m", "lightning_lab", "study", "run", "overhead.yaml", "--replicates", "never"]
        command += ["--jobs", str(options.jobs)]
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        wall = time.perf_counter() - started
        records = sorted(Path(folder).glob("logs/studies/overhead/*/summary.json"))
        runs = [json.loads(record.read_text()) for record in records]
        outcomes = [json.loads(p.read_text()) for p in Path(folder).glob("logs/studies/overhead/output/*.json")]
    assert len(runs) == len(outcomes) == arms * seeds, (len(runs), len(outcomes))
    assert {run["status"] for run in runs} == {"completed"}
    cell = wall * options.jobs / len(runs)
    taken = sorted(outcome["wall_s"] for outcome in outcomes)
    print(
        f"{len(runs)} cells, {options.jobs} at once: {wall:.1f} s; {cell:.2f} s of a place at work each, one asked for"
    )
    print(f"overhead {cell - 1:.2f} s a cell, start and end of the study included")
    print(
        f"a cell from order to end: median {statistics.median(taken):.2f} s, {taken[0]:.2f} to {taken[-1]:.2f}; "
        f"training {statistics.median(run['wall_s'] for run in runs):.2f} s"
    )


if __name__ == "__main__":
    main()
