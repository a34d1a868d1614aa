"""Lab A's experiment A4: one matrix product as Python loops, as NumPy, as torch.

A layer of the digits' net: 32 images of 256 values times 256 x 128 weights, in float64, on one thread. Python's loops
are timed once a round, the others over many products; results are compared before anything is timed.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/vectorisation.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from measure import print_conditions

ROUNDS = 5
BATCH, INPUTS, OUTPUTS = 32, 256, 128


def loops(x: list[list[float]], w: list[list[float]]) -> list[list[float]]:
    """Multiply (B, I) by (I, O) number by number."""
    product = []
    for row in x:
        sums = [0.0] * len(w[0])
        for i in range(len(row)):
            for j in range(len(sums)):
                sums[j] += row[i] * w[i][j]
        product.append(sums)
    return product


def seconds(call: Callable[[], object], times: int) -> float:
    """Time one call, over many."""
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def main() -> None:
    torch.set_num_threads(1)
    print_conditions()
    random = np.random.default_rng(0)
    x, w = random.normal(size=(BATCH, INPUTS)), random.normal(size=(INPUTS, OUTPUTS))
    x_list, w_list, x_torch, w_torch = x.tolist(), w.tolist(), torch.from_numpy(x), torch.from_numpy(w)
    assert np.allclose(loops(x_list, w_list), x @ w)
    assert np.allclose((x_torch @ w_torch).numpy(), x @ w)
    ratios: dict[str, list[float]] = {"NumPy": [], "torch": []}
    slow = []
    for _ in range(ROUNDS):
        slow.append(seconds(lambda: loops(x_list, w_list), 1))
        ratios["NumPy"].append(slow[-1] / seconds(lambda: x @ w, 200))
        ratios["torch"].append(slow[-1] / seconds(lambda: x_torch @ w_torch, 200))
    print(f"Python loops: {1e3 * statistics.median(slow):.0f} ms a product, median of {ROUNDS}")
    for name, of in ratios.items():
        print(f"{name}: {statistics.median(of):.0f} times as fast ({min(of):.0f} to {max(of):.0f})")


if __name__ == "__main__":
    main()
