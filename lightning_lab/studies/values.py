"""Values as text: on the command line, in the name of an arm, and in the one way that is hashed. Free of torch."""

from __future__ import annotations

import json
from typing import Any

from lightning_lab import shipped
from lightning_lab.studies.reading import load_file, load_value


def merge_bases(names: tuple[str, ...]) -> dict[str, Any]:
    """Lay configurations over one another, as ``fit`` does with several ``--config``."""
    merged: dict[str, Any] = {}
    for name in names:
        merged = _over(merged, load_file(shipped.find(name)))
    return merged


def _over(below: Any, above: Any) -> Any:
    # `data: CIFAR10` is short for `data: {class_path: CIFAR10}`, and keeps the arguments there are.
    if isinstance(below, dict) and isinstance(above, str) and "class_path" in below:
        above = {"class_path": above}
    if isinstance(below, str) and isinstance(above, dict) and "init_args" in above:
        below = {"class_path": below}
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: _over(below[key], value) if key in below else value for key, value in above.items()}}


def level_text(value: Any) -> str:
    """Write a level as it stands in the name of an arm: one text for one value.

    Example:
        >>> level_text(0.0), level_text("0.50"), level_text([128, 64]), level_text(None)
        ('0', '0.5', '[128,64]', 'null')
    """
    value = _whole(load_value(value) if isinstance(value, str) else value)
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)


def argument(value: Any) -> str:
    """Write a value as on the command line.

    Example:
        >>> argument(0.3), argument(None), argument([128, 64]), argument("gelu")
        ('0.3', 'null', '[128, 64]', 'gelu')
    """
    return value if isinstance(value, str) else json.dumps(value)


def canonical(value: Any) -> str:
    """Write a value in one way, whatever the order of its keys; 1.0 is 1.

    Example:
        >>> canonical({"b": 1.0, "a": [True, None]})
        '{"a": [true, null], "b": 1}'
    """
    return json.dumps(_whole(value), sort_keys=True, default=str)


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _whole(content) for key, content in value.items()}
    if isinstance(value, list):
        return [_whole(content) for content in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
