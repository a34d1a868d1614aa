"""Five independent random streams from one seed.

Every draw of the laboratory is a pure function of (seed, stream, counters), never of how many draws came before it.
So the split does not depend on the net, two settings with one seed see the same order and augmentation, and a resumed
run draws what the uninterrupted one would have drawn. Free of torch.
"""

from __future__ import annotations

import hashlib
from typing import Literal

Stream = Literal["split", "init", "order", "augment", "noise"]


def stream_seed(seed: int, stream: Stream, *counters: int) -> int:
    """Derive the seed of one stream.

    Args:
        seed: The run's seed (``--seed_everything``).
        stream: Which stream.
        *counters: What the draw belongs to, for example the epoch.

    Returns:
        An integer in [0, 2**63), a valid seed for every generator of torch.

    Example:
        >>> stream_seed(0, "order", 1) == stream_seed(0, "order", 1)
        True
        >>> stream_seed(0, "order", 1) == stream_seed(0, "augment", 1)
        False
    """
    text = "/".join([str(seed), stream, *map(str, counters)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
