"""How ten classes of sounds are made: one short generator each, and the room and noise around them.

Nothing here knows of files. `demo` mixes a foreground over a background and writes the result.

In each generator, `source` and `take` are the random numbers of the source (character: pitch, rhythm,
timbre) and of the take (performance: start, level, jitter), `t` holds the times of the samples in s,
float64 `(samples,)`, and `rate` is in Hz, at least 16000. It returns float64 `(samples,)` of any level.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage
import scipy.signal

Signal = npt.NDArray[np.floating[Any]]
Rng = np.random.Generator


def foreground(name: str, seed: int, take: int, samples: int, rate: int) -> Signal:
    """One sound in its room, without noise; its loudest 20 ms have power 1. float64 `(samples,)`."""
    source = generator(name, seed, 0)
    out = VOICES[name](source, generator(name, seed, 2, take), np.arange(samples) / rate, rate)
    out = _room(source, out, rate)
    power = float(scipy.ndimage.uniform_filter1d(out**2, round(0.02 * rate), mode="constant").max())
    return out / max(power, 1e-12) ** 0.5


def background(source: Rng, take: Rng, samples: int, rate: int) -> Signal:
    """Noise between white and pink with power 1, in places with mains hum. float64 `(samples,)`."""
    slope, hum = source.uniform(0, 0.6), source.choice([0, 0, 0.5])
    mains = source.choice([50, 60])
    out = _shaped_noise(take, samples, rate, lambda hz: np.maximum(hz, 20) ** -slope)
    out *= 1 + 0.2 * _wander(take, np.arange(samples) / rate, 0.3)
    if hum:
        out += hum * _tone(np.full(samples, float(mains)), source.uniform(0, 1, 6), rate)
    return out / float(out.std())


def generator(name: str, *numbers: int) -> Rng:
    """Random numbers that depend on the class and on `numbers`, and on nothing else."""
    return np.random.default_rng([zlib.crc32(name.encode()), *numbers])


def _siren(source: Rng, take: Rng, t: Signal, rate: int) -> Signal:
    """A tone that wails, yelps or steps between two pitches, never silent."""
    low, ratio = _log_uniform(source, 350, 800), source.uniform(1.5, 2.5)
    harmonics = source.uniform(0.3, 0.8) ** np.arange(6)
    kind = int(source.integers(3))
    period = source.uniform(*((3.0, 7.0), (0.25, 0.7), (0.8, 1.6))[kind])
    phase = (t / period + take.random()) % 1
    shape = (0.5 - 0.5 * np.cos(2 * np.pi * phase), 1 - abs(2 * phase - 1), (phase < 0.5).astype(float))[kind]
    pitch = low * ratio ** _soften(shape, 0.02, rate) * (1 + 0.01 * _wander(take, t, 0.5))
    return _tone(pitch, harmonics, rate) * (1 + 0.5 * _wander(take, t, 0.4))


def _clock(source: Rng, take: Rng, t: Signal, rate: int) -> Signal:
    """Regular, short, bright ticks over a duller body; every second one sounds different."""
    period, tock = source.uniform(0.2, 1.0), source.uniform(0.4, 1.0)
    decay, body = source.uniform(0.003, 0.01), source.uniform(300, 900)
    beats = _beats(take, t, period, jitter=0.003)
    out = np.zeros(len(t))
    for start, level in ((0, 1.0), (1, tock)):
        hits = _hits(t, beats[start::2], level * take.uniform(0.9, 1.1, len(beats[start::2])), rate)
        out += _ring(hits, source.uniform(1800, 6000, 3), np.full(3, decay), rate)
        out += 0.3 * _ring(hits, np.array([body]), np.array([0.02]), rate)
    return out


def _crickets(source: Rng, take: Rng, t: Signal, rate: int) -> Signal:
    """One to three insects, each with trains of short pulses on one high pitch."""
    out = np.zeros(len(t))
    for _ in range(source.integers(1, 4)):
        pitch, pulse_rate = source.uniform(3500, 5800), source.uniform(22, 45)
        chirp_rate, on = source.uniform(0.7, 3), source.choice([0.4, 0.5, 0.65, 1.0])
        phase = t * chirp_rate * (1 + 0.02 * _wander(take, t, 0.3)) + take.random()
        chirp = _soften((phase % 1 < on).astype(float), 0.02, rate)
        pulses = np.maximum(0, np.sin(2 * np.pi * pulse_rate * t + take.uniform(0, 6))) ** 1.5
        voice = _tone(pitch * (1 + 0.003 * _wander(take, t, 1)), np.array([1, 0.05]), rate)
        out += source.uniform(0.2, 1) * chirp * pulses * voice
    return out


def _engine(source: Rng, take: Rng, t: Signal, rate: int) -> Signal:
    """Many harmonics of a low firing rate that revs slowly, under rough noise."""
    firing, orders = _log_uniform(source, 28, 110), np.arange(1, 161) / 2  # half orders: unequal cylinders
    bump = 1 + 3 * np.exp(-(((orders * firing - source.uniform(150, 900)) / 150) ** 2))
    uneven = np.where(orders % 1 == 0, 1.0, source.uniform(0.1, 0.5))
    level = bump * uneven * orders ** -source.uniform(0.6, 1.1) * source.uniform(0.4, 1, 160)
    level[orders * firing > 5000] = 0
    spectrum = np.concatenate([[0], level * np.exp(1j * source.uniform(0, 2 * np.pi, 160))])
    table = scipy.fft.irfft(spectrum, 4096)  # one cycle of the engine: two turns
    revs, roughness = source.uniform(0, 0.35), source.uniform(0.1, 0.5)
    speed = firing / 2 * (1 + revs * _wander(take, t, 0.5) + 0.02 * _wander(take, t, 8))
    phase = take.random() + np.cumsum(speed) / rate
    strokes = table[(phase % 1 * 4096).astype(int) % 4096] / table.std()
    hiss = _noise(take, len(t), rate, 200, 2500) * (1 + 0.7 * np.sin(4 * np.pi * phase))
    return strokes + roughness * hiss


def _bell(source: Rng, take: Rng, t: Signal, rate: int) -> Signal:
    """Strikes with inharmonic partials (hum, prime, tierce, quint, nominal ...) that ring for seconds."""
    ratios = np.array([0.5, 1, 1.19, 1.5, 2, 2.51, 2.66, 3.01, 4.17, 5.43])
    partials = _log_uniform(source, 330, 1100) * ratios * source.uniform(0.99, 1.01, 10)
    decays = source.uniform(0.4, 1.0) * (500 / partials) ** 0.6 * source.uniform(0.7, 1.3, 10)
    gains = source.uniform(0.3, 1, 10)
    beats = _beats(take, t, source.uniform(0.7, 3.0), jitter=0.03)
    return _ring(_hits(t, beats, take.uniform(0.6, 1, len(beats)), rate), partials, decays, rate, gains)


def _rain(source: Rng, take: Rng, t: Signal, rate: int) -> Signal:
    """Steady bright noise, and drops that ring for an instant, loud ones few."""
    out = _noise(take, len(t), rate, source.uniform(500, 1800), source.uniform(5000, 12000))
    out *= source.uniform(0.4, 1.0) * (1 + 0.2 * _wander(take, t, 0.5))
    drops_per_second, splash = _log_uniform(source, 20, 300), source.uniform(0.5, 1.5)
    for pitch, decay in zip(source.uniform(900, 6000, 6), source.uniform(5e-4, 3e-3, 6), strict=True):
        drops = take.uniform(0, t[-1], take.poisson(drops_per_second * t[-1] / 6) + 1)
        levels = np.minimum(take.pareto(2.5, len(drops)), 6) * take.choice([-1, 1], len(drops))
        out += splash * _ring(_hits(t, drops, levels, rate), np.array([pitch]), np.array([decay]), rate)
    return out


def _footsteps(source: Rng, take: Rng, t: Signal, rate: int) -> Signal:
    """A walk: the thud of the heel, a softer toe, the crunch of the ground; left and right differ."""
    period, thud, left = source.uniform(0.38, 0.75), source.uniform(70, 220), source.uniform(0.5, 1)
    toe_after, crunch = source.uniform(0.07, 0.13), source.uniform(0.3, 1.0)
    beats = _beats(take, t, period, jitter=0.02)
    levels = np.where(np.arange(len(beats)) % 2 == 0, left, 1.0) * take.uniform(0.7, 1, len(beats))
    heels = _hits(t, beats, levels, rate)
    toes = _hits(t, beats + toe_after, levels * take.uniform(0.4, 0.9, len(beats)), rate)
    decay = np.exp(-1 / (source.uniform(0.012, 0.035) * rate))
    ground = scipy.signal.lfilter([1], [1, -decay], heels + toes)
    gravel = _noise(take, len(t), rate, source.uniform(400, 1200), source.uniform(2000, 5000))
    thuds = _ring(heels, thud * np.array([1, 2.3, 4.1]), np.array([0.03, 0.02, 0.01]), rate)
    return thuds + 0.6 * crunch * ground * gravel


def _birds(source: Rng, take: Rng, t: Signal, rate: int) -> Signal:
    """A motif of whistled, gliding syllables, repeated at irregular times."""
    middle = _log_uniform(source, 2300, 4800)
    notes = source.integers(3, 8)
    starts = middle * source.uniform(0.75, 1.3, notes)
    glides = source.uniform(1.2, 1.6, notes) ** source.choice([-1, 1], notes)
    lengths, gaps = source.uniform(0.04, 0.2, notes), source.uniform(0.02, 0.1, notes)
    trill, pause = source.uniform(15, 40), source.uniform(0.2, 1.2)
    depth = source.choice([0, 0, 0.06])
    pieces = []
    for start, glide, length, gap in zip(starts, glides, lengths, gaps, strict=True):
        u = np.linspace(0, 1, round(length * rate))
        pitch = start * glide ** (u**1.5) * (1 + depth * np.sin(2 * np.pi * trill * length * u))
        pieces += [_tone(pitch, np.array([1, 0.1]), rate) * np.sin(np.pi * u) ** 0.7]
        pieces += [np.zeros(round(gap * rate))]
    motif = np.concatenate(pieces)
    out = np.zeros(len(t))
    for start in _beats(take, t, len(motif) / rate + pause, jitter=0.25):
        _place(out, motif, start, rate, gain=take.uniform(0.4, 1))
    return out


def _alarm(source: Rng, take: Rng, t: Signal, rate: int) -> Signal:
    """Electronic beeps of fixed pitch with gaps, in groups with a pause between them."""
    pitch, step = _log_uniform(source, 800, 2600), source.choice([1, 1, 1.25, 0.8])
    beep, duty = source.uniform(0.1, 0.35), source.uniform(0.4, 0.65)
    group = int(source.integers(1, 5))
    rest = source.uniform(0.3, 1.0) if group > 1 else 0.0
    clock = (t + take.uniform(0, 2)) % (group * beep + rest)
    on = (clock % beep < duty * beep) & (clock < group * beep)
    tone = pitch * np.where((clock // beep) % 2 == 0, 1, step)
    harmonics = np.array([1, 0.15, 0.6, 0.1, 0.4]) * source.uniform(0.5, 1, 5)
    return _tone(tone, harmonics, rate) * _soften(on.astype(float), 0.004, rate)


def _wind(source: Rng, take: Rng, t: Signal, rate: int) -> Signal:
    """Low noise in gusts; the stronger the gust, the brighter, and at some corners it whistles."""
    corner, gusts = source.uniform(120, 350), source.uniform(0.3, 0.9)
    pitch, whistle = source.uniform(350, 900), source.choice([0, 0.1, 0.25])
    gust = np.clip(0.5 + 0.5 * _wander(take, t, gusts) + 0.08 * _wander(take, t, 6), 0.05, 1.2)
    low = _noise(take, len(t), rate, 25, corner)
    high = _noise(take, len(t), rate, corner, 4 * corner)
    reed = _tone(pitch * (0.7 + 0.6 * gust), np.ones(1), rate) * _noise(take, len(t), rate, 1, 15)
    return gust * low + 0.8 * gust**2 * high + whistle * gust**2 * reed


def _log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _tone(pitch: Signal, harmonics: Signal, rate: int) -> Signal:
    """A tone of `pitch` Hz `(samples,)`; harmonics that would come near half the rate are left out."""
    phase = np.cumsum(pitch) * (2 * np.pi / rate)
    before, wave, twice_cos = np.zeros(len(pitch)), np.sin(phase), 2 * np.cos(phase)
    out = harmonics[0] * wave
    for number, level in enumerate(harmonics[1:], start=2):
        if number * pitch.max() > 0.45 * rate:
            break
        before, wave = wave, twice_cos * wave - before  # sin kx = 2 cos x sin (k-1)x - sin (k-2)x
        out += level * wave
    return out


def _ring(hits: Signal, pitches: Signal, decays: Signal, rate: int, gains: Signal | float = 1.0) -> Signal:
    """Struck things: each sample of `hits` starts sines of `pitches` Hz that fall 8.7 dB in `decays` s."""
    out = np.zeros(len(hits))
    for pitch, decay, gain in zip(pitches, decays, np.broadcast_to(gains, pitches.shape), strict=True):
        angle, radius = 2 * np.pi * pitch / rate, np.exp(-1 / (decay * rate))
        poles = [1, -2 * radius * np.cos(angle), radius**2]
        out += gain * scipy.signal.lfilter([0, radius * np.sin(angle)], poles, hits)
    return out


def _hits(t: Signal, times: Signal, levels: Signal, rate: int) -> Signal:
    """Impulses of `levels` at `times` s, `(samples,)`; those outside the clip are left out."""
    index = np.round(times * rate).astype(int)
    inside = (index >= 0) & (index < len(t))
    out = np.zeros(len(t))
    np.add.at(out, index[inside], levels[inside])
    return out


def _beats(take: Rng, t: Signal, period: float, jitter: float) -> Signal:
    """Times in s of a rhythm with some jitter; the first is before the clip, the second soon in it."""
    first = take.uniform(0, min(period, t[-1] / 2)) - period
    times = np.arange(first, t[-1], period)
    return times + take.uniform(-jitter, jitter, len(times))


def _place(out: Signal, sound: Signal, start: float, rate: int, gain: float) -> None:
    """Add `sound` to `out` at `start` s, as far as it lies within."""
    begin = round(start * rate)
    first, stop = max(0, begin), min(len(out), begin + len(sound))
    if first < stop:
        out[first:stop] += gain * sound[first - begin : stop - begin]


def _soften(gate: Signal, seconds: float, rate: int) -> Signal:
    """A curve with its steps smoothed over `seconds`."""
    return scipy.ndimage.uniform_filter1d(gate, max(1, round(seconds * rate)), mode="nearest")


def _wander(rng: Rng, t: Signal, hz: float) -> Signal:
    """A smooth random curve in [-1, 1] that turns about `hz` times a second."""
    position = t * hz + rng.random()
    knots = rng.uniform(-1, 1, int(position[-1]) + 2)
    index = position.astype(int)
    u = position - index
    u = u * u * (3 - 2 * u)
    return knots[index] * (1 - u) + knots[index + 1] * u


def _noise(rng: Rng, samples: int, rate: int, low: float, high: float) -> Signal:
    """Noise from `low` to `high` Hz with soft edges, power 1."""
    return _shaped_noise(rng, samples, rate, lambda hz: _band(hz, low, high))


def _band(hz: Signal, low: float, high: float) -> Signal:
    """Gain of a second-order Butterworth high-pass and low-pass filter in a row, at `hz` > 0."""
    gain: Signal = 1 / np.sqrt((1 + np.square((low / hz) ** 2)) * (1 + np.square((hz / high) ** 2)))
    return gain


def _shaped_noise(rng: Rng, samples: int, rate: int, gain: Callable[[Signal], Signal]) -> Signal:
    size = scipy.fft.next_fast_len(samples, real=True)
    spectrum = scipy.fft.rfft(rng.standard_normal(size, np.float32))
    spectrum *= gain(_bins(size, rate))
    out = scipy.fft.irfft(spectrum, size)[:samples]
    return np.divide(out, out.std(), dtype=np.float64)


def _bins(size: int, rate: int) -> Signal:
    """Frequencies of the bins of `rfft` in Hz; that of the constant counts as 1 Hz."""
    return np.maximum(np.fft.rfftfreq(size, 1 / rate), 1)


def _room(source: Rng, dry: Signal, rate: int) -> Signal:
    """Reverberation of a random room and microphone."""
    decay, wet = source.uniform(0.1, 0.7), source.uniform(0, 0.4)
    tilt_db, low, high = source.uniform(-1.5, 1.5), source.uniform(20, 90), source.uniform(5000, 9000)
    t = np.arange(round(0.6 * rate)) / rate
    tail = source.standard_normal(len(t)) * np.exp(-6.9 * t / decay)  # -60 dB after `decay` s
    echo = wet * tail / np.sqrt(np.sum(tail**2))
    echo[0] += 1
    size = scipy.fft.next_fast_len(len(dry) + len(echo), real=True)
    hz = _bins(size, rate)
    microphone = 10 ** (tilt_db / 20 * np.log2(hz / 1000)) * _band(hz, low, high)
    spectrum = scipy.fft.rfft(dry.astype(np.float32), size) * scipy.fft.rfft(echo.astype(np.float32), size)
    spectrum *= microphone
    return scipy.fft.irfft(spectrum, size)[: len(dry)].astype(np.float64)


Voice = Callable[[Rng, Rng, Signal, int], Signal]
VOICES: dict[str, Voice] = {
    "siren": _siren,
    "clock": _clock,
    "crickets": _crickets,
    "engine": _engine,
    "bell": _bell,
    "rain": _rain,
    "footsteps": _footsteps,
    "birds": _birds,
    "alarm": _alarm,
    "wind": _wind,
}
