"""Run a study on workers that SLURM starts, one job each, with `python slurm.py my_study.yaml`.

Needs `pip install dask-jobqueue`. The scheduler is in this process, so run it where it may stay: on a login node in
tmux, or in a job of its own. Jobs that reach their time limit are replaced.
"""

import subprocess
import sys
from contextlib import suppress

from dask_jobqueue import SLURMCluster

JOBS = 8
CELLS = 2  # of each job at once; so many cores
MEMORY = "4GB"  # of each job
MINUTES = 240  # of each job; a worker leaves five minutes earlier, and its cells go on elsewhere
INTERFACE = None  # the network, for example "ib0"; None takes the machine's first address
EXTRA = []  # more for sbatch, for example ["--gpus=1", "--partition=gpu"]

if __name__ == "__main__":
    quiet = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    with SLURMCluster(
        cores=CELLS,
        processes=1,
        memory=MEMORY,
        walltime=f"{MINUTES // 60:02}:{MINUTES % 60:02}:00",
        interface=INTERFACE,
        nanny=False,
        worker_extra_args=[*quiet, "--lifetime", f"{MINUTES - 5}m", "--lifetime-stagger", "2m"],
        job_extra_directives=EXTRA,
        log_directory="slurm-logs",
        scheduler_options={"dashboard_address": "127.0.0.1:0"},
    ) as cluster:
        cluster.adapt(minimum_jobs=JOBS, maximum_jobs=JOBS)
        command = [sys.executable, "-m", "lightning_lab", "study", "run", *sys.argv[1:]]
        with subprocess.Popen([*command, "--scheduler", cluster.scheduler_address]) as study:
            while study.poll() is None:
                with suppress(KeyboardInterrupt):  # the study hears Ctrl-C too, and its cells need their jobs to save
                    study.wait()
    sys.exit(study.returncode)
