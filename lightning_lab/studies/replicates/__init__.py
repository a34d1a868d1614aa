"""All seeds of one arm trained in one process, with stacked weights: small nets at a fraction of the time.

A step of a small net takes as long for its overhead as for its arithmetic. With the weights of n nets stacked, one
step trains all n. Each keeps what its separate `fit` would have: split, first weights, order of batches, augmentation,
dropout masks, gradient norm, best epoch, record. It is not the same bits: products of stacked matrices are added up in
another order than single ones, and training enlarges a rounding error. tests/studies/test_replicates.py holds the two
to each other.
"""

from lightning_lab.studies.replicates.fit import fit_replicates
from lightning_lab.studies.replicates.supported import can_replicate

__all__ = ["can_replicate", "fit_replicates"]
