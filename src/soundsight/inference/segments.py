"""From a recording to the images of its segments, with the memory of a few segments.

A segment is resampled and rendered from the same samples that `audio.read` would hand over for that segment of
the file, so its image is byte for byte the one that training sees. The recording is read once, from
start to end, whatever the overlap: files, pipes and arrays go the same way.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from soundsight import audio
from soundsight.audio import AudioInfo, Waveform
from soundsight.config import SpectrogramConfig
from soundsight.errors import AudioError, ConfigError
from soundsight.files import printable
from soundsight.spectrogram import SILENT_SPAN, Image, render, render_with_reference

# Samples are read in blocks this long; one that is damaged is lost as a whole.
BLOCK_SECONDS, PIPE_BLOCK_SECONDS = 2.0, 0.5

Opened = AbstractContextManager[tuple[AudioInfo, Iterator[Waveform]]]


@dataclass(frozen=True)
class Source:
    """A recording by name, and how to open it."""

    name: str
    open: Callable[[], Opened]
    live: bool = False  # samples may come slowly, so predictions must not wait for later ones
    path: str | Path | None = None  # of a file


@dataclass(frozen=True)
class Segment:
    """A segment that is cut but not rendered."""

    start_seconds: float
    end_seconds: float  # where its sound ends: before the segment's end in the tail of a recording
    waveform: Waveform  # (samples + margin,) at the recording's rate
    samples: int  # of the waveform that lie in the segment; the rest helps the resampler
    rate: int  # Hz
    weight: float = 1.0  # in a mean: the share of a segment that no earlier one has seen, for the last of a recording


def file_source(path: str | Path) -> Source:
    """A recording on disk."""
    if "\0" in str(path):
        return Source(printable(path), lambda: _nothing(f"{printable(path)!r} is no name of a file."))
    if os.path.isdir(path):
        return Source(printable(path), lambda: _nothing(f"The folder {path} holds no recordings that can be read."))
    return Source(printable(path), lambda: audio.opened(path, block_seconds=BLOCK_SECONDS), path=path)


def pipe_source(stream: BinaryIO, *, raw_rate: int | None = None) -> Source:
    """A recording on an open binary stream such as standard input."""
    return Source(
        "-",
        lambda: audio.opened(stream, raw_rate=raw_rate, block_seconds=PIPE_BLOCK_SECONDS),
        live=not stream.seekable(),
    )


def array_source(samples: npt.ArrayLike, rate: int | None, *, name: str = "array") -> Source:
    """A recording in memory; see `audio.to_mono` for shapes and types."""
    if rate is None:
        raise ConfigError("An array does not tell its sample rate; pass it too: predictor(samples, rate=16000).")
    if not audio.MIN_RATE <= rate <= audio.MAX_RATE or rate != int(rate):
        raise AudioError(f"rate={rate} Hz is not allowed; a whole number from {audio.MIN_RATE} to {audio.MAX_RATE} is.")
    waveform = audio.to_mono(samples)
    info = AudioInfo(int(rate), 1, len(waveform), "array")
    return Source(name, lambda: nullcontext((info, iter([waveform]))))


def _nothing(reason: str) -> Opened:
    raise AudioError(reason)


def cut(
    blocks: Iterable[Waveform],
    rate: int,
    config: SpectrogramConfig,
    *,
    window_seconds: float,
    hop_seconds: float,
) -> Iterator[Segment]:
    """Cut a recording into segments.

    Segments begin at multiples of the hop, until one reaches the recording's end. What is left there is a segment of
    its own, to be padded, if it fills at least `audio.LEAST_SHARE` of one, as in training. A shorter rest is seen
    by a whole segment that ends where the recording ends; less than one column of an image, or than
    `audio.IGNORED_SHARE` of a segment, is left out.

    Yields:
        Segments in order; the first one even if it is short.
    """
    length = audio.span(0, window_seconds, rate)[1]
    margin = audio.MARGIN_SAMPLES if rate != config.sample_rate else 0
    shortest = max(round(config.hop_length * rate / config.sample_rate), round(audio.IGNORED_SHARE * length))
    ahead = max(margin, shortest)
    buffer, first = np.zeros(0, np.float32), 0  # `first` is the number of the buffer's first sample
    index, reached = 0, 0  # the next segment, and where the last one ended, in samples

    def segment(begin: int, start: float, samples: int, weight: float = 1.0) -> Segment:
        waveform = buffer[begin - first : begin - first + samples + margin]
        end = start + window_seconds if samples == length else (begin + samples) / rate
        return Segment(round(start, 6), round(end, 6), waveform, samples, rate, weight)

    damage: AudioError | None = None
    try:
        for block in blocks:
            buffer = np.concatenate([buffer, block])
            while (begin := audio.span(index * hop_seconds, 0, rate)[0]) + length + ahead <= first + len(buffer):
                yield segment(begin, index * hop_seconds, length)
                index, reached = index + 1, begin + length
            drop = min(max(min(begin, first + len(buffer) - length) - first, 0), len(buffer))
            buffer, first = buffer[drop:], first + drop
    except AudioError as error:
        damage = error
    total = first + len(buffer)
    while total:
        begin = audio.span(index * hop_seconds, 0, rate)[0]
        unseen = total - max(begin, reached)
        if index and unseen <= shortest:
            break
        samples, weight = min(length, total - begin), min(1.0, unseen / length)
        if index and samples < audio.LEAST_SHARE * length and total >= length:
            yield segment(total - length, (total - length) / rate, length, weight)
            break
        yield segment(begin, index * hop_seconds, samples, samples / length)
        index, reached = index + 1, begin + length
    if damage is not None:
        raise damage


def render_segment(
    segment: Segment, config: SpectrogramConfig, speeds: Sequence[float] = ()
) -> tuple[list[Image], bool, float]:
    """Images of a segment, as it is and at other speeds; whether it is silent; see `render_with_reference`."""
    own = segment.waveform[: segment.samples]
    silent = bool(own.max() - own.min() < SILENT_SPAN)
    sound = audio.resample(segment.waveform, segment.rate, config.sample_rate)
    sound = sound[: math.ceil(segment.samples * config.sample_rate / segment.rate)]
    image, reference_db = render_with_reference(sound, config)
    versions = (audio.change_speed(sound, speed, config.clip_samples) for speed in speeds)
    return [image, *(render(version, config) for version in versions)], silent, reference_db
