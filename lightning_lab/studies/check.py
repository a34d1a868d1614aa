"""``study plan --check``: build every arm's net and data with the parser that runs it. Needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_lab import shipped
from lightning_lab.callbacks.least_squares_head import BEFORE
from lightning_lab.callbacks.penalty import PENALTY
from lightning_lab.cli import LabCLI
from lightning_lab.messages import quieten
from lightning_lab.runs.errors import InputError, unknown
from lightning_lab.studies.design import Study, cells_of
from lightning_lab.studies.quantity import OTHER, quantity
from lightning_lab.studies.reading import Faults


class _Untrained(LabCLI):
    """The command line without its trainer: nothing is written, and no device is asked for."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Build none."""
        return None


def check_arms(study: Study) -> None:
    """Parse each arm's settings, build its net, task and data, and look for the metrics that are compared.

    Two arms that are the same run are a fault, too.

    Args:
        study: The study.

    Raises:
        InputError: With a line for each arm that cannot be built.
    """
    quieten()
    faults = Faults(study.file)
    metrics = [("metric", study.metric)]
    metrics += [
        (f"claims[{i}].metric", metric)
        for i, claim in enumerate(study.claims)
        for metric in quantity(claim.metric).metrics
    ]
    seen: set[str] = set()
    arms: dict[str, str] = {}  # by the whole configuration
    for cell in cells_of(study, Path("logs")):
        if cell.arm in seen:
            continue
        seen.add(cell.arm)
        configs = (arg.partition("=") for arg in cell.arguments if arg.startswith("--config="))
        args = [f"{flag}={shipped.find(name)}" for flag, _, name in configs]
        args += [arg for arg in cell.arguments if not arg.startswith("--config=")]
        try:
            cli = _Untrained("fit", args, stem=study.name, origin=None)
            cli.check_monitors()
        except InputError as error:
            faults.add(f"arm {cell.arm}", str(error))
            continue
        twin = arms.setdefault(cli.resolved_config(), cell.arm)
        if twin != cell.arm:
            faults.add(f"arm {cell.arm}", f"is the same run as {twin} once the defaults are filled in. Leave one.")
        logged = getattr(cli.model, "metric_names", None)
        for path, metric in metrics:
            if logged is not None and metric not in OTHER and metric.removesuffix(BEFORE) not in (*logged, PENALTY):
                faults.add(path, unknown("metric", metric, [name for name in logged if name.startswith("val/")]))
    faults.end()
