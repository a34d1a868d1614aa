"""The convolution as a matrix product against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_lab.nets.small_map import SmallMapConv2d


def both(dtype: torch.dtype = torch.float64) -> tuple[SmallMapConv2d, nn.Conv2d]:
    torch.manual_seed(0)
    ours = SmallMapConv2d(5, 7).to(dtype)
    theirs = nn.Conv2d(5, 7, 3, padding=1).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("size", [(2, 2), (2, 3), (1, 1), (4, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_output_and_gradients_are_those_of_torch(size: tuple[int, int], layout: torch.memory_format) -> None:
    ours, theirs = both()
    x = torch.randn(6, 5, *size, dtype=torch.float64)
    upstream = torch.randn(6, 7, *size, dtype=torch.float64)
    found = []
    for conv in (ours, theirs):
        own = x.clone().to(memory_format=layout).requires_grad_()
        y = conv(own)
        y.backward(upstream)
        found.append((y.detach(), own.grad, conv.weight.grad, conv.bias.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_autocast_computes_in_bf16() -> None:
    ours, theirs = both(torch.float32)
    x = torch.randn(6, 5, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        one, other = ours(x), theirs(x)
    assert one.dtype == other.dtype == torch.bfloat16
    torch.testing.assert_close(one.float(), other.float(), atol=0.03, rtol=0.03)


def test_small_maps_are_not_convolved(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: taken.append(tuple(x.shape)) or x)
    ours, _ = both(torch.float32)
    ours(torch.zeros(1, 5, 2, 2))
    ours(torch.zeros(1, 5, 4, 4))
    assert taken == [(1, 5, 4, 4)]
