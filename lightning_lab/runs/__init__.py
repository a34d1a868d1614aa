"""The record of a run: seeds, files written whole, the run directory, its environment and the listing of runs."""
