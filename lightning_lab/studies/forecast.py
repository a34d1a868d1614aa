"""What the rest of a study will take, and what its seeds can show, from the cells that are done. Free of torch.

scipy is imported only where there is a spread to compute with.
"""

from __future__ import annotations

import math
import statistics

from lightning_lab.runs.directory import RunDirectory
from lightning_lab.studies.calibration import Calibrated
from lightning_lab.studies.cells import CellResult
from lightning_lab.studies.design import Study
from lightning_lab.studies.table import MEASURED, values_by_arm

_UNKNOWN = "not known yet: no cell is done; --calibrate tries each arm for seconds"
#: The significance level of all comparisons together, and how often a true difference is to be found.
_ALPHA, _POWER = 0.05, 0.8


def expected_time(results: list[CellResult], calibrated: Calibrated | None = None) -> str:
    """Word how long the rest will train: by the done cells of its arm, else as calibrated, else by those of other arms.

    Cells that were trained together have each its share of the time that they took.

    Args:
        results: All cells of a study.
        calibrated: What was measured on request.
    """
    left = [result for result in results if not result.done]
    if not left:
        return "nothing is left to train"
    measured = [result for result in results if _is_measured(result)]
    times = {result.cell: _wall_s(result) for result in measured}
    tried = calibrated.seconds if calibrated else {}
    if not times and not tried:
        return _UNKNOWN
    total, by_trial = 0.0, 0
    for result in left:
        of_arm = [time for cell, time in times.items() if cell.arm == result.cell.arm]
        by_trial += not of_arm and result.cell.arm in tried
        expected = tried.get(result.cell.arm) if not of_arm else None
        expected = statistics.fmean(of_arm or times.values() or tried.values()) if expected is None else expected
        total += max(0.0, expected - _spent(result))
    mean = statistics.fmean(times.values()) if times else total / len(left)
    source = f"measured on {len(times)}{_shared(measured)}" if times else ""
    start = ""
    if calibrated and by_trial:
        source += f", {by_trial} calibrated" if times else "calibrated"
        start = f", and {duration(calibrated.start_s)} to start each"
    return (
        f"about {duration(total)} of training for {len(left)} cells, one after another ({duration(mean)} a cell, "
        f"{source}){start}"
    )


def expected_disk(results: list[CellResult], calibrated: Calibrated | None = None) -> str:
    """Word what the folders take and will take, from those of the cells that are done, else as calibrated.

    Args:
        results: All cells of a study.
        calibrated: What was measured on request.
    """
    sizes = {result.cell: _bytes(result.cell.directory) for result in results if _is_measured(result)}
    left = [result for result in results if not result.done]
    tried = calibrated.bytes if calibrated else {}
    if not sizes and not tried:
        return _UNKNOWN
    more, by_trial = 0.0, False
    for result in left:
        of_arm = [size for cell, size in sizes.items() if cell.arm == result.cell.arm]
        expected = tried.get(result.cell.arm) if not of_arm else None
        by_trial |= expected is not None
        more += statistics.fmean(of_arm or sizes.values() or tried.values()) if expected is None else expected
    how = " (calibrated)" if by_trial else ""
    if not sizes:
        return f"about {_size(more)} for {len(left)} cells{how}"
    rest = f", about {_size(more)} more{how}" if left else ""
    return f"{_size(sum(sizes.values()))} for {len(sizes)} cells that are done{rest}"


def smallest_difference_shown(study: Study, results: list[CellResult]) -> str:
    """Word the smallest difference to the reference that the study's seeds can show, given the spread so far.

    Args:
        study: The study.
        results: All its cells.
    """
    values = values_by_arm(results, study.metric, "last")
    reference = values[study.reference]
    squares, freedom, most = 0.0, 0, 0
    for arm, of_arm in values.items():
        pairs = [of_arm[seed] - reference[seed] for seed in reference if seed in of_arm]
        if arm != study.reference and len(pairs) >= 2:
            squares += statistics.variance(pairs) * (len(pairs) - 1)
            freedom += len(pairs) - 1
            most = max(most, len(pairs))
    if len(study.arms) == 1:
        return "nothing to compare: there is one arm"
    if len(study.seeds) == 1:
        return "no difference: one seed has no spread. Give at least 3 seeds"
    if not freedom:
        return "not known yet: it needs two seeds of the reference and of another arm"
    from lightning_lab.studies.power import smallest_difference

    comparisons = len(study.arms) - 1
    smallest = smallest_difference(
        math.sqrt(squares / freedom), len(study.seeds), alpha=_ALPHA / comparisons, power=_POWER
    )
    return (
        f"with {len(study.seeds)} seeds a difference of about {smallest:.2g} in {study.metric} (found {_POWER:.0%} of "
        f"the time, {comparisons} comparison{'s' if comparisons > 1 else ''} at {_ALPHA:.0%} together; spread known "
        f"from {most} seeds so far)"
    )


def _is_measured(result: CellResult) -> bool:
    return result.status in MEASURED and "wall_s" in result.summary  # one that diverged ended early


def _spent(result: CellResult) -> float:
    continues = result.status == "running" or result.cell.directory.can_continue
    return _wall_s(result) if continues else 0.0


def _wall_s(result: CellResult) -> float:
    return float(result.summary.get("wall_s", 0.0)) / _together(result)


def _together(result: CellResult) -> int:
    noted = result.cell.directory.read_environment().get("replicates")
    count = noted.get("count") if isinstance(noted, dict) else 1
    return count if isinstance(count, int) and count > 0 else 1


def _shared(results: list[CellResult]) -> str:
    count = sum(_together(result) > 1 for result in results)
    if not count:
        return ""
    return f"; {'all' if count == len(results) else count} of them trained with others of their arm, and share its time"


def _bytes(run: RunDirectory) -> int:
    return sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())


def duration(seconds: float) -> str:
    """Word an expected or mean time, to two digits.

    Example:
        >>> duration(0.271), duration(95.4), duration(150), duration(9000)
        ('0.27 s', '95 s', '2.5 min', '2.5 h')
    """
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}" if seconds < 100 * length else f"{seconds / length:.0f} {unit}"
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds:.0f} s"


def _size(count: float) -> str:
    for unit, length in (("GB", 1e9), ("MB", 1e6)):
        if count >= length:
            return f"{count / length:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
