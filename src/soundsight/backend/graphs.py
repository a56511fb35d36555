"""Augmentation and the network's passes as CUDA graphs: one launch each, where a fast GPU would wait for Python.

A small network on small images is hundreds of kernels of a few microseconds, launched one by one. Recorded once,
they are launched together. Only full batches of the recorded shape take this way; all else computes as before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from soundsight.augment import Augmenter


class _Pass(nn.Module):
    """The pass to record, without what Ultralytics wraps around it."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.predict = network.predict

    def forward(self, images: Tensor) -> Any:
        return self.predict(images)


def record_network(network: Any, sample: Tensor, *, dtype: torch.dtype | None) -> None:
    """Let a network compute batches like `sample` through two CUDA graphs, there and back, when it trains.

    The parameters' gradients are then the graph's own memory, written anew by each pass: they must be dropped
    between steps, not summed over several.
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


class RecordedAugmenter:
    """What an `Augmenter` does to full batches as one CUDA graph; erasing is not among it."""

    def __init__(self, augmenter: Augmenter, batch: int, image_size: int, device: torch.device) -> None:
        self.augmenter = augmenter
        before = augmenter.random.get_state()
        self.images = torch.zeros(batch, 3, image_size, image_size, dtype=torch.uint8, device=device)
        self.labels = torch.zeros((batch, augmenter.classes) if augmenter.multi else batch, device=device).long()
        self.choices = augmenter.draw(batch).to(device)
        augmenter.random.set_state(before)
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            self._apply()  # once before recording, so that libraries are loaded
        torch.cuda.current_stream(device).wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.changed = self._apply()

    def _apply(self) -> tuple[Tensor, Tensor]:
        pixels, targets = self.augmenter.apply(self.images, self.labels, self.choices)
        return pixels.contiguous(memory_format=torch.channels_last), targets

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As `Augmenter`; what it returns of a full batch is overwritten by the next."""
        if images.shape != self.images.shape:
            return self.augmenter(images, labels)
        self.choices.copy_(self.augmenter.draw(len(images)), non_blocking=True)
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.graph.replay()
        return self.changed
