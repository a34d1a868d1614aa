"""What the nets refuse, in one wording: the argument as the user wrote it, what is allowed, what was given."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from torch import Tensor


def check_positive(argument: str, value: int | Sequence[int], count: int | None = None) -> None:
    """Refuse a count below 1.

    Args:
        argument: Name of the constructor's argument.
        value: What it was given: one count, or several.
        count: How many of them it must be.

    Raises:
        ValueError: If a count is no whole number or below 1, or there are not so many of them.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        if count not in (None, len(value)):
            raise ValueError(f"`{argument}` must have {count} entries, got {list(value)}.")
        for position, one in enumerate(value):
            check_positive(f"{argument}[{position}]", one)
    elif not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"`{argument}` must be a whole number, got {value!r}.")
    elif value < 1:
        raise ValueError(f"`{argument}` must be at least 1, got {value}.")


def check_dropout(dropout: float, argument: str = "dropout") -> None:
    """Refuse a dropout probability outside [0, 1).

    Args:
        dropout: Probability of zeroing a value.
        argument: Name of the constructor's argument.

    Raises:
        ValueError: If it is outside [0, 1), or not a number.
    """
    if not 0.0 <= dropout < 1.0:
        raise ValueError(
            f"`{argument}` must be in [0, 1), got {dropout}. It is the share of values set to zero, not the share kept."
        )


def check_choice(argument: str, value: str, known: Iterable[str]) -> None:
    """Refuse a name that is not in a closed set.

    Args:
        argument: Name of the constructor's argument.
        value: What it was given.
        known: The names that it takes.

    Raises:
        ValueError: If the name is not among them. The close match comes first.
    """
    names = list(known)
    if value in names:
        return
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"`{argument}` does not know {value!r}.{hint} Known: {', '.join(names)}.")


def check_images(net: str, x: Tensor, input_shape: tuple[int, int, int]) -> None:
    """Refuse images of another shape than the net was built for.

    Args:
        net: Name of the net.
        x: The batch.
        input_shape: Channels, height and width of one image.

    Raises:
        ValueError: If the batch holds anything else.
    """
    if tuple(x.shape[1:]) == input_shape:
        return
    expected = " x ".join(map(str, input_shape))
    got = " x ".join(map(str, x.shape[1:])) or "single values"
    raise ValueError(
        f"{net} was built for images of {expected} (channels x height x width), got {got}. "
        "Set `in_channels` and `image_size` of the net, or choose the data to fit."
    )
