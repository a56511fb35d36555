"""Live sound: a microphone, or another input, classified as it arrives.

An input hands over blocks with the time at which their last sample was recorded. The last clip length of sound
is kept in a ring; each tick, the newest sound in it is resampled, rendered and classified as `predict` does.
Blocks that come while the model is busy wait in a queue; ticks that are missed are not made up for.
"""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from soundsight.audio import MAX_RATE, MIN_RATE, Waveform
from soundsight.checks import require
from soundsight.errors import AudioError, ConfigError, check_range
from soundsight.inference.options import Options, decide, thresholds
from soundsight.inference.predictor import Predictor
from soundsight.inference.segments import Segment, render_segment

_QUEUE_SECONDS = 10.0  # of sound that may wait while the model is busy; more is dropped and counted
_MAX_CHANNELS = 2


class Input(Protocol):
    """Where live sound comes from."""

    sample_rate: int  # Hz
    overruns: int  # times that sound was lost before it could be processed

    def waiting_seconds(self) -> float:
        """Sound that is there already but not handed over yet."""

    def blocks(self) -> Iterator[tuple[Waveform, float]]:
        """Mono float32 blocks `(samples,)`, each with the `time.monotonic()` of its last sample."""


@dataclass(frozen=True)
class Device:
    """An input of this machine."""

    index: int
    name: str
    channels: int
    sample_rate: int  # Hz, the device's own
    default: bool


@dataclass(frozen=True, eq=False)
class LivePrediction:
    """The prediction for the clip length of sound that ends at `seconds`."""

    seconds: float  # of sound since the start
    label: str  # see `Prediction`
    probability: float
    probabilities: npt.NDArray[np.float32]  # (classes,)
    latency_seconds: float  # from the last sample to this prediction
    labels: tuple[str, ...] = ()


class Microphone:
    """A PortAudio input, opened with `with`, at its own rate; channels are averaged."""

    def __init__(self, device: int | str | None = None, *, block_seconds: float = 0.05) -> None:
        """Choose an input."""
        chosen = find_device(device)
        self.device = chosen
        self.sample_rate = chosen.sample_rate
        self.overruns = 0
        self._frames = max(1, round(block_seconds * self.sample_rate))
        self._queue: queue.Queue[tuple[Waveform, float] | None] = queue.Queue(
            max(1, round(_QUEUE_SECONDS / block_seconds))
        )
        self._stream: Any = None

    def __enter__(self) -> Microphone:
        sounddevice = load_sounddevice()
        try:
            self._stream = sounddevice.InputStream(
                samplerate=self.sample_rate,
                blocksize=self._frames,
                device=self.device.index,
                channels=min(_MAX_CHANNELS, self.device.channels),
                dtype="float32",
                callback=self._take,
                finished_callback=self._finish,
            )
            self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            raise AudioError(
                f"The input {self.device.name!r} cannot be opened ({error}); choose another one, see --list-devices."
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def waiting_seconds(self) -> float:
        """See `Input`."""
        return self._queue.qsize() * self._frames / self.sample_rate

    def blocks(self) -> Iterator[tuple[Waveform, float]]:
        """See `Input`; ends when the device is gone."""
        while True:
            try:
                item = self._queue.get(timeout=1.0)
            except queue.Empty:
                if self._stream is None or not self._stream.active:
                    return
                continue
            if item is None:
                return
            yield item

    def _take(self, data: npt.NDArray[np.float32], frames: int, times: Any, status: Any) -> None:
        """Called by PortAudio in its own thread."""
        now = time.monotonic()
        if status.input_overflow:
            self.overruns += 1
        # How long ago the last sample was recorded; some hosts give no usable times.
        age = times.currentTime - times.inputBufferAdcTime - frames / self.sample_rate
        sound = now - age if 0 <= age < 5 else now
        try:
            self._queue.put_nowait((data.mean(axis=1, dtype=np.float32), sound))
        except queue.Full:
            self.overruns += 1

    def _finish(self) -> None:
        with suppress(queue.Full):
            self._queue.put_nowait(None)


class Raw:
    """Samples of 16 bits, mono, little-endian, from a stream such as standard input; every tick is predicted."""

    overruns = 0

    def __init__(self, stream: BinaryIO, rate: int) -> None:
        check_range("--raw", rate, MIN_RATE, MAX_RATE, " Hz")
        self.stream, self.sample_rate = stream, rate

    def waiting_seconds(self) -> float:
        """See `Input`."""
        return 0.0

    def blocks(self) -> Iterator[tuple[Waveform, float]]:
        """See `Input`."""
        size = 2 * max(1, self.sample_rate // 20)
        while len(data := self.stream.read(size)) > 1:
            yield (
                np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / np.float32(32768),
                time.monotonic(),
            )


class Ring:
    """The last samples of an endless stream."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.kept = np.zeros(0, np.float32)
        self.total = 0  # samples ever taken

    def add(self, block: Waveform) -> None:
        """Take a block `(samples,)`."""
        self.total += len(block)
        self.kept = np.concatenate([self.kept, block])[-self.samples :]

    def last(self) -> Waveform:
        """All that is kept, oldest first: fewer samples at the start of the stream."""
        return self.kept


def listen(
    predictor: Predictor, source: Input, *, every_seconds: float = 1.0, options: Options | None = None
) -> Iterator[LivePrediction]:
    """Classify live sound until its source ends.

    Args:
        predictor: The model.
        source: Where the sound comes from.
        every_seconds: Sound between two predictions. Before the first full clip, the sound there is gets padded
            as in training.
        options: Thresholds, time shifts and speeds; the segment is the model's clip length.
    """
    check_range("every", every_seconds, 0.05, 3600, " s")
    how = predictor.resolve(options or Options())
    least = thresholds(how.threshold, predictor.classifier.preprocessing)
    config, rate = predictor.spectrogram, source.sample_rate
    ring = Ring(math.ceil(config.clip_seconds * rate))
    due = step = max(1, round(every_seconds * rate))
    for block, sound in source.blocks():
        ring.add(block)
        if ring.total < due or source.waiting_seconds() >= every_seconds:
            continue
        due = (ring.total // step + 1) * step
        waveform = ring.last()
        images, silent, _ = render_segment(Segment(0.0, 0.0, waveform, len(waveform), rate), config, how.tta_speeds)
        (row,) = predictor.classifier.probabilities(
            np.stack(images), shifts=how.tta_shifts, images_per_segment=len(images)
        )
        probabilities = np.zeros_like(row) if silent else row
        label, probability, labels = decide(probabilities, silent, predictor.names, least, multi=predictor.model.multi)
        latency = time.monotonic() - sound
        yield LivePrediction(ring.total / rate, label, probability, probabilities, latency, labels)


def devices() -> list[Device]:
    """The inputs of this machine."""
    sounddevice = load_sounddevice()
    default = sounddevice.default.device[0]
    return [
        Device(
            index,
            str(found["name"]),
            int(found["max_input_channels"]),
            round(found["default_samplerate"]),
            index == default,
        )
        for index, found in enumerate(sounddevice.query_devices())
        if found["max_input_channels"] > 0
    ]


def find_device(wanted: int | str | None) -> Device:
    """An input by number, by a part of its name, or the default one."""
    known = devices()
    if not known:
        raise ConfigError("This machine has no sound input; plug in a microphone, and see --list-devices.")
    if wanted is None:
        return next((device for device in known if device.default), known[0])
    if isinstance(wanted, int):
        fitting = [device for device in known if device.index == wanted]
    else:
        fitting = [device for device in known if wanted.lower() in device.name.lower()]
        fitting = [device for device in fitting if device.name == wanted] or fitting
    if len(fitting) != 1:
        problem = "Several inputs fit" if fitting else "There is no input"
        names = ", ".join(f"{device.index} {device.name!r}" for device in fitting or known)
        raise ConfigError(f"{problem} {wanted!r}; choose one of: {names}.")
    return fitting[0]


def load_sounddevice() -> Any:
    """The module sounddevice."""
    try:
        return require("sounddevice", "soundsight[live]")
    except OSError as error:
        raise ConfigError(
            "Live sound needs the PortAudio library; install libportaudio2 with your system's package manager."
        ) from error
