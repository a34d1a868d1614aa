"""Does bf16 cost accuracy? Several seeds of one configuration in bf16 and in fp32, everything else the same.

python benchmarks/precision.py --config cifar10/lenet5 --seeds 5 -- --data.root DIR --trainer.max_epochs 10
"""

from __future__ import annotations

import argparse
import statistics

import torch  # noqa: F401 - so that the conditions can say the threads
from measure import print_conditions, rows_of_fit
from scipy import stats


def last_accuracy(config: str, precision: str, seed: int, extra: list[str]) -> tuple[float, float]:
    """Validation accuracy after the last epoch, and the seconds of the fit."""
    rows = rows_of_fit(f"--config={config}", f"--trainer.precision={precision}", f"--seed_everything={seed}", *extra)
    return rows[-1]["val/acc"], rows[-1]["time_s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("extra", nargs="*", help="behind --: more arguments of fit")
    options = parser.parse_args()
    print_conditions()
    print(
        f"{options.config} {' '.join(options.extra)}\n\n| seed | bf16 | fp32 | bf16 s | fp32 s |\n|---|---|---|---|---|"
    )
    differences, times = [], []
    for seed in range(options.seeds):
        bf16, bf16_s = last_accuracy(options.config, "bf16-mixed", seed, options.extra)
        fp32, fp32_s = last_accuracy(options.config, "32-true", seed, options.extra)
        differences.append(bf16 - fp32)
        times.append(fp32_s / bf16_s)
        print(f"| {seed} | {bf16:.4f} | {fp32:.4f} | {bf16_s:.0f} | {fp32_s:.0f} |", flush=True)
    mean, sd = statistics.mean(differences), statistics.stdev(differences)
    half = stats.t.ppf(0.975, len(differences) - 1) * sd / len(differences) ** 0.5
    interval = f"95 % interval {mean - half:+.4f} to {mean + half:+.4f}"
    print(f"\nbf16 - fp32: {mean:+.4f}, {interval} (n = {len(differences)} pairs)")
    print(f"fp32 took {statistics.median(times):.2f} times as long ({min(times):.2f} to {max(times):.2f})")


if __name__ == "__main__":
    main()
