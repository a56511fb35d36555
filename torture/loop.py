"""`soundsight listen` with its sound input replaced by a looped recording, at the pace of a sound card.

python -m torture.loop SECONDS model.onnx --format jsonl --every 0.25
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np

from torture import sounds

LOOP_SECONDS = 2
BLOCK_SECONDS = 0.25
seconds_to_play = 60.0


def main() -> int:
    global seconds_to_play
    from soundsight.cli import main as soundsight
    from soundsight.inference import live

    seconds_to_play = float(sys.argv[1])
    live.Microphone = LoopedMicrophone  # type: ignore[assignment,misc]
    return soundsight(["listen", *sys.argv[2:]])


class LoopedMicrophone:
    """Plays two seconds of noise again and again; a block counts as heard when it is due, however late it comes."""

    sample_rate = sounds.RATE
    overruns = 0

    def __init__(self, chosen: object = None) -> None:
        self.device = SimpleNamespace(name="looped recording")
        self.sound = sounds.noise(LOOP_SECONDS * sounds.RATE)[:, 0]

    def __enter__(self) -> LoopedMicrophone:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def waiting_seconds(self) -> float:
        """Nothing waits: a block comes when it is due."""
        return 0.0

    def blocks(self) -> Iterator[tuple[np.ndarray, float]]:
        """Blocks of 0.25 s with the time at which they ended."""
        started, size = time.monotonic(), round(BLOCK_SECONDS * sounds.RATE)
        for number in range(round(seconds_to_play / BLOCK_SECONDS)):
            due = started + (number + 1) * BLOCK_SECONDS
            time.sleep(max(0.0, due - time.monotonic()))
            begin = number * size % len(self.sound)
            yield self.sound[begin : begin + size], due


if __name__ == "__main__":
    sys.exit(main())
