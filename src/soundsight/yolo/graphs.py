"""The network's forward and backward pass as CUDA graphs: one launch each, where a fast GPU would wait for Python.

A small network on small pictures is hundreds of kernels of a few microseconds, launched one by one. Recorded once,
they are launched together. Only full batches of the recorded shape take this way; all else computes as before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Pass(nn.Module):
    """The pass to record, without what Ultralytics wraps around it."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.predict = network.predict

    def forward(self, images: Tensor) -> Any:
        return self.predict(images)


def record(network: Any, sample: Tensor, *, dtype: torch.dtype | None) -> None:
    """Let a network compute batches like `sample` through CUDA graphs when it trains.

    The parameters' gradients are then the graph's own memory, written anew by each pass: they must be dropped
    between steps, not summed over several.

    Args:
        network: An Ultralytics network on a GPU, each layer in the mode in which it trains; its `predict` is replaced.
        sample: float32 `(batch, 3, height, width)` on the same GPU, laid out as batches will be.
        dtype: Of automatic mixed precision; `None` computes in float32.
    """
    plain = network.predict
    kept = [buffer.clone() for buffer in network.buffers()]
    recorded = _Pass(network)
    with torch.autocast("cuda", dtype=dtype or torch.float16, enabled=dtype is not None, cache_enabled=False):
        torch.cuda.make_graphed_callables(recorded, (sample,))
    with torch.no_grad():
        for buffer, value in zip(network.buffers(), kept, strict=True):
            buffer.copy_(value)  # recording ran the network, which moved the means of its batch normalisation

    def predict(images: Tensor, *args: Any, **kwargs: Any) -> Any:
        alike = images.shape == sample.shape and images.stride() == sample.stride() and images.dtype == sample.dtype
        if alike and network.training and torch.is_grad_enabled() and not (args or kwargs):
            return recorded(images)
        return plain(images, *args, **kwargs)

    network.predict = predict
