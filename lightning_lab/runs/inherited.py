"""What a process started here must not inherit from the one that starts it. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping

#: Another run's folder, and a place among the processes of another launcher.
_FOREIGN = ("LIGHTNING_LAB_RUN", "LIGHTNING_LAB_FIRST_PROCESS", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
_FOREIGN_PREFIXES = ("SLURM_", "TORCHELASTIC_", "GROUP_", "ROLE_", "MASTER_")


def own_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Leave out what would make a run one process of somebody else's job.

    Lightning takes a process under ``srun`` for one of as many ranks as the job has tasks.

    Args:
        variables: An environment.

    Example:
        >>> own_environment({"PATH": "/bin", "SLURM_NTASKS": "2", "RANK": "1"})
        {'PATH': '/bin'}
    """
    return {
        name: value
        for name, value in variables.items()
        if name not in _FOREIGN and not name.startswith(_FOREIGN_PREFIXES)
    }
