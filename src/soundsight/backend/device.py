"""Which device computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soundsight import checks
from soundsight.errors import ConfigError

if TYPE_CHECKING:
    import torch


def choose_device(device: str | None) -> torch.device:
    """The device to compute on."""
    import torch

    if device in (None, ""):
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    text = str(device)
    if text == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device=mps is not there: PyTorch sees no GPU of Apple; use another device, or device=cpu.")
    if text in ("cpu", "mps"):
        return torch.device(text)
    index = text.removeprefix("cuda").lstrip(":") or "0"
    if index.isdigit() and int(index) < torch.cuda.device_count():
        return torch.device(f"cuda:{index}")
    checks.check_gpus(text)
    raise ConfigError(f"device={text} is not understood; write cpu, mps, or the number of a GPU, such as 0.")
