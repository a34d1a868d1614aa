"""Studies: arms times seeds of runs, and what can be concluded from them. On top of everything else."""
