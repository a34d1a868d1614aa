"""What a cell claims of a worker's resources, for example a share of its GPU. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_lab.runs.errors import InputError


def read_resources(text: str) -> dict[str, float]:
    """Read what each cell claims of a worker.

    Args:
        text: As on the command line, written as for ``dask worker --resources``.

    Raises:
        InputError: If it is no list of names with amounts.

    Example:
        >>> read_resources("GPU=0.5,MEMORY=4e9")
        {'GPU': 0.5, 'MEMORY': 4000000000.0}
    """
    resources = {}
    for entry in text.replace(",", " ").split():
        name, _, amount = entry.partition("=")
        try:
            resources[name] = float(amount)
        except ValueError:
            resources[name] = 0.0
        if not (name and 0 < resources[name] < float("inf")):
            raise InputError(f"`resources` must be names with amounts above 0 such as GPU=1, got {text!r}.")
    return resources


def has_worker_with(resources: Mapping[str, float], client: Any) -> bool:
    """Tell whether a cluster has a worker now that announces what each cell claims.

    Args:
        resources: What a cell claims; nothing is what every worker has.
        client: The Dask client.
    """
    workers = client.scheduler_info()["workers"].values()
    return any(all(one["resources"].get(name, 0) >= of for name, of in resources.items()) for one in workers)
