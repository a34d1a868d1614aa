"""The statistics of a study, in one place. Numbers in, numbers and words out: nothing here knows of files."""

from lightning_lab.studies.comparison import Difference, compare_arms
from lightning_lab.studies.estimate import Estimate, estimate
from lightning_lab.studies.factorial import Effect, interactions, main_effects
from lightning_lab.studies.power import seeds_for_equivalence, seeds_needed, smallest_difference

__all__ = [
    "Difference",
    "Effect",
    "Estimate",
    "compare_arms",
    "estimate",
    "interactions",
    "main_effects",
    "seeds_for_equivalence",
    "seeds_needed",
    "smallest_difference",
]
