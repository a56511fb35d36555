"""Triggers: what is done when a class begins and ends in live sound.

A class begins where it is reported, and goes on while its probability is at least the lower threshold (hysteresis).
Each receiver has a bounded queue and a thread of its own, so that a slow or hanging one holds up neither the model nor
another one.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import shlex
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import soundfile

from soundsight.audio import Waveform
from soundsight.errors import ConfigError, did_you_mean
from soundsight.inference.live import Input, LivePrediction, Ring

QUEUE = 100  # messages that may wait for one receiver; more are dropped and counted
PATIENCE_SECONDS = 10.0  # for a command, a web address or a broker; and at the end for what still waits
BEGIN, END = "begin", "end"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Message:
    """A class that begins or ends."""

    event: str  # BEGIN or END
    label: str
    probability: float
    seconds: float  # of sound since the start
    time: str  # ISO 8601, local

    def json(self) -> str:
        """As one line of JSON."""
        return json.dumps(vars(self), ensure_ascii=False)


class Switch:
    """Tells when classes begin and end."""

    def __init__(
        self,
        wanted: Sequence[str],
        names: Sequence[str],
        off_thresholds: npt.NDArray[np.float32],
        cooldown: float = 0.0,
    ) -> None:
        """Choose classes.

        Args:
            wanted: Classes to watch.
            names: Those of the model.
            off_thresholds: `(classes,)`; a class that has begun goes on while its probability is at least this.
            cooldown: Seconds after a beginning in which the class does not begin again.

        Raises:
            ConfigError: The model knows no such class.
        """
        for name in wanted:
            if name not in names:
                raise ConfigError(f"--on {name}: this model knows no such class.{did_you_mean(name, names, '')}")
        self.columns = {name: names.index(name) for name in wanted}
        self.off, self.cooldown = off_thresholds, cooldown
        self.active: set[str] = set()
        self.began: dict[str, float] = {}

    def add(self, prediction: LivePrediction) -> Iterator[Message]:
        """What begins or ends with this prediction."""
        reported = set(prediction.labels) if prediction.labels else {prediction.label}
        for name, column in self.columns.items():
            probability = float(prediction.probabilities[column])
            if name in self.active:
                if name not in reported and probability < self.off[column]:
                    self.active.remove(name)
                    yield self._message(END, name, probability, prediction.seconds)
            elif name in reported and prediction.seconds - self.began.get(name, -np.inf) >= self.cooldown:
                self.active.add(name)
                self.began[name] = prediction.seconds
                yield self._message(BEGIN, name, probability, prediction.seconds)

    def _message(self, event: str, label: str, probability: float, seconds: float) -> Message:
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        return Message(event, label, round(probability, 6), round(seconds, 3), now)


class Receiver(Protocol):
    """Something that takes messages, in a thread of its own; it may be slow."""

    name: str

    def send(self, message: Message) -> None:
        """Take one message; raises `OSError` or `ConfigError` if it did not get through."""

    def close(self) -> None:
        """No more messages will come."""


class Worker:
    """A bounded queue and a thread before a receiver."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.dropped = self.failed = 0
        self._queue: queue.Queue[Message | None] = queue.Queue(QUEUE)
        self._thread = threading.Thread(target=self._run, name=receiver.name, daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Hand over a message, or drop it if too many wait."""
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self.dropped += 1
            if self.dropped == 1:
                _log.warning("%s is too slow: %d messages wait, more are dropped.", self.receiver.name, QUEUE)

    def close(self) -> None:
        """Wait a while for what is in the queue."""
        seconds = PATIENCE_SECONDS
        with suppress(queue.Full):
            self._queue.put(None, timeout=seconds)
        self._thread.join(seconds)

    def _run(self) -> None:
        while (message := self._queue.get()) is not None:
            try:
                self.receiver.send(message)
            except (OSError, ConfigError) as error:  # those of requests are OSErrors
                self.failed += 1
                if self.failed == 1:
                    _log.warning("%s failed: %s", self.receiver.name, str(error)[:200])
        self.receiver.close()


class Command:
    """Runs a command for each beginning, with the message as JSON on standard input and in the environment."""

    name = "--exec"

    def __init__(self, command: str) -> None:
        try:
            self.words = shlex.split(command)
        except ValueError as error:
            raise ConfigError(f"--exec {command[:100]} cannot be read ({error}); close its quotes.") from None
        if not self.words:
            raise ConfigError("--exec is empty; write a command and its arguments.")

    def send(self, message: Message) -> None:
        """See `Receiver`."""
        if message.event != BEGIN:
            return
        env = {f"SOUNDSIGHT_{key.upper()}": str(value) for key, value in vars(message).items()}
        try:
            done = subprocess.run(
                self.words, input=message.json() + "\n", text=True, env={**os.environ, **env}, timeout=PATIENCE_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"the command took more than {PATIENCE_SECONDS:g} s and was ended") from None
        if done.returncode:
            raise OSError(f"the command ended with {done.returncode}")

    def close(self) -> None:
        """See `Receiver`."""


class Webhook:
    """Posts each beginning to a web address, as JSON."""

    name = "--webhook"

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"--webhook {url[:100]} is no address; write http:// or https:// before it.")
        self.url = url

    def send(self, message: Message) -> None:
        """See `Receiver`."""
        import requests

        if message.event == BEGIN:
            headers = {"Content-Type": "application/json"}
            reply = requests.post(self.url, data=message.json().encode(), headers=headers, timeout=PATIENCE_SECONDS)
            reply.raise_for_status()

    def close(self) -> None:
        """See `Receiver`."""


class Tape:
    """A live input that also remembers its newest sound, to be saved around beginnings."""

    overruns = 0  # those of the source count

    def __init__(self, source: Input, folder: Path, *, before: float, after: float) -> None:
        """Listen in.

        Args:
            source: The input.
            folder: Where FLAC files go, named by class and time.
            before: Seconds that are kept before a beginning, the clip that it was found in included.
            after: Seconds after it.
        """
        self.source, self.folder, self.after = source, folder, after
        self.sample_rate = source.sample_rate
        self.ring = Ring(max(1, round((before + after) * source.sample_rate)))
        self.due: list[tuple[int, Message]] = []  # at which sample to save
        self.files: list[Path] = []

    def waiting_seconds(self) -> float:
        """See `Input`."""
        return self.source.waiting_seconds()

    def blocks(self) -> Iterator[tuple[Waveform, float]]:
        """See `Input`."""
        for block, sound in self.source.blocks():
            self.ring.add(block)
            while self.due and self.due[0][0] <= self.ring.total:
                self._save(self.due.pop(0)[1])
            yield block, sound

    def keep(self, message: Message) -> None:
        """Save the sound around a beginning as soon as what comes after it is there."""
        self.due.append((self.ring.total + round(self.after * self.sample_rate), message))

    def close(self) -> None:
        """Save what is there of the sound around the last beginnings."""
        for _, message in self.due:
            self._save(message)
        self.due = []

    def _save(self, message: Message) -> None:
        from soundsight.datasets.names import safe_name
        from soundsight.files import replacing

        time = datetime.fromisoformat(message.time).strftime("%Y%m%d_%H%M%S_%f")
        path = self.folder / safe_name(message.label) / f"{time}_{message.probability:.3f}.flac"
        with replacing(path) as draft:
            soundfile.write(draft, self.ring.last(), self.sample_rate, subtype="PCM_16", format="FLAC")
        self.files.append(path)
