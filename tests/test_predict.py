"""Predictions: windows, labels, thresholds, failures, batches; the same images as in training."""

from __future__ import annotations

import glob
import io
import itertools
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

import soundsight
from conftest import TINY_EARS, noise
from soundsight.audio import AudioInfo
from soundsight.backend.checkpoint import load_checkpoint, update_preprocessing
from soundsight.backend.export import export
from soundsight.config import SpectrogramConfig
from soundsight.datasets.catalogue import Clip
from soundsight.datasets.images import render_clip
from soundsight.errors import AudioError, ConfigError, ModelError
from soundsight.files import matching
from soundsight.inference import Options, Prediction, Predictor, Summary, load, predict
from soundsight.inference.events import merge
from soundsight.inference.formats.audacity import Audacity
from soundsight.inference.formats.base import Context
from soundsight.inference.pipeline import Ended, compute
from soundsight.inference.results import Tally
from soundsight.inference.segments import Source, array_source, cut, file_source
from soundsight.inference.sources import expand
from soundsight.inference.timeline import Timeline
from soundsight.models.classifier import softmax

RATE = TINY_EARS.sample_rate


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return load(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def clip(tiny_sounds: Path) -> Path:
    return sorted((tiny_sounds / "audio").glob("5-*.wav"))[0]


def spans(seconds: float, window: float = 1.0, hop: float = 1.0, rate: int = RATE) -> list[tuple[float, float]]:
    blocks = [noise(seconds, rate)]
    found = cut(blocks, rate, TINY_EARS, window_seconds=window, hop_seconds=hop)
    return [(stretch.start_seconds, stretch.end_seconds) for stretch in found]


def test_windows_cover_a_recording_and_its_tail() -> None:
    assert spans(0.3) == [(0, 0.3)]
    assert spans(1.0) == [(0, 1)]
    assert spans(2.5) == [(0, 1), (1, 2), (2, 2.5)]
    assert spans(2.0, hop=0.5) == [(0, 1), (0.5, 1.5), (1, 2)]
    assert spans(2.2, hop=0.5) == [(0, 1), (0.5, 1.5), (1, 2), (1.5, 2.2)]
    assert spans(5.0, hop=2) == [(0, 1), (2, 3), (4, 5)]
    assert spans(1.0, window=0.4, hop=0.4) == [(0, 0.4), (0.4, 0.8), (0.8, 1)]


def test_a_tail_of_less_than_one_column_is_no_window() -> None:
    column = TINY_EARS.hop_length / RATE  # 15.6 ms
    assert spans(1 + 0.9 * column) == [(0, 1)]
    assert len(spans(1 + 1.1 * column)) == 2
    assert len(spans(1 + 1.1 * column, rate=44100)) == 2
    assert spans(10.048, window=5, hop=5) == [(0, 5), (5, 10)]  # what AAC adds at the end


def test_blocks_of_any_size_give_the_same_windows() -> None:
    whole = noise(7.3, 22050)
    for size in (700, 22050, 10**6):
        blocks = [whole[i : i + size] for i in range(0, len(whole), size)]
        found = list(cut(blocks, 22050, TINY_EARS, window_seconds=1.0, hop_seconds=0.7))
        assert [s.start_seconds for s in found] == [round(0.7 * i, 6) for i in range(10)]
        for stretch in found:
            start = round(stretch.start_seconds * 22050)
            np.testing.assert_array_equal(stretch.waveform, whole[start : start + len(stretch.waveform)])


def test_an_answer_tells_what_and_when(predictor: Predictor, clip: Path) -> None:
    answer = predictor(clip, top_k=2)
    (window,) = answer.predictions
    assert (window.start_seconds, window.end_seconds, answer.duration_seconds) == (0, 1, 1)
    assert window.probabilities.shape == (4,)
    assert window.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert window.label == answer.label == predictor.names[window.probabilities.argmax()]
    assert answer.top()[0] == (answer.label, pytest.approx(answer.probability))
    assert len(answer.top()) == 2 and len(answer.top(4)) == 4
    rows = answer.to_rows()
    assert [row["rank"] for row in rows] == [1, 2]
    assert rows[0]["model"] == predictor.model_hash and rows[0]["settings"] == "own"


def test_answers_print_and_become_frames(predictor: Predictor, clip: Path) -> None:
    answer = predictor(clip)
    assert repr(answer).startswith(f"{clip}, 1.00 s: {answer.label} {answer.probability:.3f}\n")
    nasty = replace(answer, recording="<script>.wav")
    assert "&lt;script&gt;.wav" in nasty._repr_html_() and "<script>" not in nasty._repr_html_()
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    assert isinstance(answer.to_pandas(), pandas.DataFrame)
    assert answer.to_pandas().label[0] == answer.label
    assert isinstance(answer.to_polars(), polars.DataFrame)
    assert answer.to_polars()["label"][0] == answer.label
    assert len(replace(answer, predictions=()).to_polars()) == len(replace(answer, predictions=()).to_pandas()) == 0


def test_digital_silence_is_no_class(predictor: Predictor) -> None:
    for silence in (np.zeros(RATE), np.full(RATE, -1 / 128), 3e-7 * noise(1)):
        answer = predictor(silence.astype(np.float32), RATE)
        assert (answer.label, answer.probability, answer.top()) == ("silence", 0.0, [])
        assert len(answer.to_rows()) == 1
    faint = np.round(noise(1) * 1e-3 * 2**15) / 2**15  # a few steps of 16 bits
    assert predictor(faint.astype(np.float32), RATE).label in predictor.names
    half = predictor(np.concatenate([noise(1), np.zeros(RATE, np.float32)]), RATE)
    assert [window.label == "silence" for window in half.predictions] == [False, True]
    np.testing.assert_allclose(half.summary.probabilities, half.predictions[0].probabilities)


def test_thresholds_make_unknown(predictor: Predictor, clip: Path) -> None:
    label = predictor(clip).label
    sure = predictor(clip, threshold=1.0)
    assert sure.label == "unknown" and 0 < sure.probability < 1
    assert sure.to_rows(2)[1]["label"] == label
    assert predictor(clip, threshold={label: 1.0}).label == "unknown"
    other = next(name for name in predictor.names if name != label)
    assert predictor(clip, threshold={other: 1.0}).label == label
    assert predictor(clip, threshold={"": 1.0, label: 0.0}).label == label


def test_the_models_own_threshold_holds_unless_another_is_given(
    tiny_model: Path, clip: Path, tmp_path: Path, predictor: Predictor
) -> None:
    """What was never trained on must not come back as a sure class just because nobody set a threshold."""
    path = shutil.copy(tiny_model, tmp_path / "careful.pt")
    update_preprocessing(path, threshold=1.0)
    careful = load(path, device="cpu")
    label = predictor(clip).label
    assert careful(clip).label == "unknown" and careful(clip).top()[0][0] == label
    assert careful(clip, threshold=0.0).label == label
    assert careful(clip, threshold={label: 0.0}).label == label
    other = next(name for name in predictor.names if name != label)
    assert careful(clip, threshold={other: 0.0}).label == "unknown"
    samples, rate = soundfile.read(clip, dtype="float32")
    mixed = careful(np.concatenate([samples, noise(1)]), rate, threshold={label: 0.0})
    assert mixed.label in predictor.names  # a mean is not held to the threshold of a window
    exported = export(path, "onnx", out=tmp_path / "careful.onnx")
    assert load(exported, device="cpu")(clip).label == "unknown"  # it travels with the preprocessing


def test_shifts_average_over_time(predictor: Predictor, clip: Path) -> None:
    image = render_clip(Clip(clip, "a", "x", "a", "a"), TINY_EARS)
    logs = [np.log(predictor.classifier.probabilities(np.roll(image, 16 * k, axis=1)[None])[0]) for k in range(4)]
    expected = softmax(np.mean(logs, axis=0)[None])[0]
    np.testing.assert_allclose(predictor(clip, tta_shifts=4).predictions[0].probabilities, expected, atol=1e-5)


def test_speeds_average_over_versions_of_each_window(predictor: Predictor, clip: Path) -> None:
    """As training and cross-validation draw them, whether one window is predicted or many, by threads."""
    samples, rate = soundfile.read(clip, dtype="float32")
    whole = Clip(clip, "a", "x", "a", "a")
    looks = [render_clip(replace(whole, speed=speed), TINY_EARS) for speed in (1.0, 0.8, 1.25)]
    turned = [np.roll(look, turn, axis=1) for look in looks for turn in (0, 32)]
    expected = softmax(np.log(predictor.classifier.probabilities(np.stack(turned))).mean(axis=0)[None])[0]
    one = predictor(clip, tta_shifts=2, tta_speeds=(0.8, 1.25)).predictions[0].probabilities
    np.testing.assert_allclose(one, expected, atol=1e-5)
    assert np.abs(one - predictor(clip, tta_shifts=2).predictions[0].probabilities).max() > 1e-4
    many = predictor(np.tile(samples, 19), rate, tta_shifts=2, tta_speeds=(0.8, 1.25), steady=True)
    assert len(many.predictions) == 19
    for window in many.predictions:
        np.testing.assert_allclose(window.probabilities, expected, atol=1e-5)


def test_the_temperature_of_the_model_is_applied(tiny_model: Path, clip: Path, tmp_path: Path) -> None:
    cold = load(tiny_model, device="cpu")
    path = tmp_path / "warm.pt"
    shutil.copy(tiny_model, path)
    update_preprocessing(path, temperature=2.0)
    image = render_clip(Clip(clip, "a", "x", "a", "a"), TINY_EARS)[None]
    expected = softmax(cold.classifier.logits(image), 2.0)[0]
    warm = load(path, device="cpu")
    np.testing.assert_allclose(warm(clip).predictions[0].probabilities, expected, atol=1e-6)
    assert warm.model_hash != cold.model_hash


def test_neighbours_of_one_label_are_joined(predictor: Predictor) -> None:
    def window(start: float, label: str, p: float, recording: str = "a") -> Prediction:
        values = np.array([p, 1 - p, 0, 0], np.float32)
        return Prediction(recording, start, start + 1, label, p, values, False, predictor.model)

    def found(*windows: Prediction) -> list[tuple[str, float, float, float]]:
        joined = [w for w in merge(windows) if isinstance(w, Prediction)]
        return [(w.label, w.start_seconds, w.end_seconds, round(w.probability, 6)) for w in joined]

    assert found() == []
    assert found(window(0, "x", 0.9), window(1, "x", 0.6), window(2, "x", 0.6), window(3, "y", 0.5)) == [
        ("x", 0, 3, 0.7),
        ("y", 3, 4, 0.5),
    ]
    assert len(found(window(0, "x", 0.9), window(2, "x", 0.9))) == 2  # a gap between them
    assert len(found(window(0, "x", 0.9), window(0.5, "x", 0.9))) == 1  # an overlap
    assert len(found(window(0, "x", 0.9), window(1, "x", 0.9, "b"))) == 2  # another recording


def test_merged_events_do_not_overlap_and_meet_between_centres(predictor: Predictor) -> None:
    """A dog from 10 to 14 s, segments of 5 s every second, each named by its centre: the event is the dog."""
    values = np.array([1, 0, 0, 0], np.float32)
    windows = [
        Prediction("a", t, t + 5.0, "dog" if 10 <= t + 2.5 < 14 else "rain", 1.0, values, False, predictor.model)
        for t in range(20)
    ]
    found = [(w.label, w.start_seconds, w.end_seconds) for w in merge(windows)]
    assert found == [("rain", 0, 10), ("dog", 10, 14), ("rain", 14, 24)]
    apart = [replace(w, label=str(i)) for i, w in enumerate(windows)]
    edges = [(w.start_seconds, w.end_seconds) for w in merge(apart)]
    assert edges == [(0, 3), *((i + 2.0, i + 3.0) for i in range(1, 19)), (21, 24)]


def test_a_rest_is_an_event_of_what_no_segment_has_seen_and_weighs_as_much(predictor: Predictor) -> None:
    """10.5 s in segments of 5 s: the last segment begins at 5.5 s, and only its last half second is new."""

    def event(start: float, label: str, p: float, weight: float = 1.0) -> Prediction:
        values = np.array([p, 1 - p, 0, 0], np.float32)
        return Prediction("a", start, start + 5.0, label, p, values, False, predictor.model, weight)

    def merged(*events: Prediction) -> list[tuple[str, float, float, float]]:
        joined = [event for event in merge(events) if isinstance(event, Prediction)]
        return [(w.label, w.start_seconds, w.end_seconds, round(w.probability, 6)) for w in joined]

    other = merged(event(0, "rain", 0.8), event(5, "rain", 0.6), event(5.5, "dog", 0.9, 0.1))
    assert other == [("rain", 0, 10, 0.7), ("dog", 10, 10.5, 0.9)]
    same = merged(event(0, "rain", 0.8), event(5, "rain", 0.8), event(5.5, "rain", 0.38, 0.1))
    assert same == [("rain", 0, 10.5, 0.78)]  # (0.8 + 0.8 + 0.1 * 0.38) / 2.1


def test_a_timeline_has_one_scale_and_each_segment_at_its_place(predictor: Predictor) -> None:
    """A tone of 1 kHz, the same one 60 dB lower, noise at 20 bits' last step, silence: levels are what they are."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32) / 2
    loud, faint, nothing = tone, tone / 1000, np.zeros(RATE, np.float32)
    timeline = Timeline(TINY_EARS)
    source = array_source(np.concatenate([loud, faint, 1e-4 * noise(1), nothing]), RATE)
    events = list(predictor.stream([source], Options(), callback=timeline.add))
    assert len(events) == 5
    levels = timeline.levels(4.0)
    second = levels.shape[1] / 4
    peak = [levels[:, round((k + 0.2) * second) : round((k + 0.8) * second)].max() for k in range(4)]
    assert -3 < peak[0] <= 0 and peak[1] - peak[0] == pytest.approx(-60, abs=1)
    assert peak[2] <= -75 and peak[3] == -80
    band = [levels[:, round((k + 0.5) * second)].argmax() for k in (0, 1)]
    assert band[0] == band[1]


def test_a_class_may_be_called_silence(predictor: Predictor) -> None:
    model = replace(predictor.model, names=("dog", "silence"))
    heard = Prediction("a", 0, 1, "silence", 0.99, np.array([0.01, 0.99], np.float32), False, model)
    quiet = Prediction("a", 1, 2, "silence", 0.0, np.zeros(2, np.float32), True, model)
    tally = Tally("a", model)
    for window in (heard, quiet):
        tally.add(window)
    summary = tally.summary(2.0, "", np.zeros(2, np.float32))
    assert (summary.label, round(summary.probability, 2)) == ("silence", 0.99)
    assert len(list(merge([heard, quiet]))) == 2
    track = io.BytesIO()
    for window in (heard, quiet):
        Audacity(track, Context()).write(window)
    assert track.getvalue() == b"0.000000\t1.000000\tsilence\n"


def test_a_class_named_unknown_is_reported(tiny_model: Path, clip: Path, predictor: Predictor, tmp_path: Path) -> None:
    """Its events appear; those of a model that is unsure, which bear the same label, do not."""
    path, best = Path(shutil.copyfile(tiny_model, tmp_path / "named.pt")), predictor(clip).label
    update_preprocessing(path, names=["unknown" if name == best else name for name in predictor.names])
    model = load(path, device="cpu")
    window = model(clip).predictions[0]
    assert (window.label, window.named, model(clip).label) == ("unknown", True, "unknown")
    unsure = load(tiny_model, device="cpu")(clip, threshold=1.0).predictions[0]
    assert (unsure.label, unsure.named) == ("unknown", False)
    track = io.BytesIO()
    for found in (window, unsure):
        Audacity(track, Context()).write(found)
    assert track.getvalue() == b"0.000000\t1.000000\tunknown\n"
    later = replace(unsure, recording=window.recording, start_seconds=1.0, end_seconds=2.0)
    assert len(list(merge([window, later]))) == 2


def test_batches_fill_across_short_recordings() -> None:
    sizes = []

    def network(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return images.reshape(len(images), -1).mean(axis=1, keepdims=True, dtype=np.float32)

    sources = [array_source(noise(0.2 + 0.01 * i, seed=i), RATE, name=str(i)) for i in range(70)]
    how = {"window_seconds": 1.0, "hop_seconds": 1.0, "workers": 2}
    events = list(compute(sources, network, TINY_EARS, batch=32, **how))
    assert sizes == [32, 32, 6]
    ends = [event.recording for event in events if isinstance(event, Ended)]
    rendered = [event for event in events if not isinstance(event, Ended)]
    assert ends == [item.recording for item, _ in rendered] == [str(i) for i in range(70)]
    alone = [next(iter(compute([source], network, TINY_EARS, batch=1, **how)))[1] for source in sources]
    np.testing.assert_allclose([row for _, row in rendered], alone)


def test_endless_recordings_are_read_no_further_than_needed(predictor: Predictor) -> None:
    read = []

    def blocks() -> itertools.chain:
        for number in itertools.count():
            read.append(number)
            yield noise(1, seed=number)

    endless = Source("endless", lambda: _opened(AudioInfo(RATE, 1, 0, "array"), blocks()))
    stream = predictor.stream([endless], Options(batch=4))
    for _ in range(20):
        assert isinstance(next(stream), Prediction)
    assert len(read) < 20 + 6 * 4
    stream.close()
    time.sleep(0.5)
    assert not [t for t in threading.enumerate() if t.name == "soundsight-read"]


def test_one_window_starts_no_thread(predictor: Predictor, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread.name) or start(thread))
    predictor(clip)
    assert not [name for name in started if name.startswith("soundsight")]
    assert len(list(predict(predictor, 3 * [clip] + [clip.parent]))) > 3
    assert "soundsight-read" in started


def _opened(info: AudioInfo, blocks: object) -> object:
    from contextlib import nullcontext

    return nullcontext((info, blocks))


def test_bad_recordings_are_told_and_the_rest_is_answered(predictor: Predictor, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("this is no sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    broken = noise(3.0)
    broken[40_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", broken, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "cut.flac", noise(40.0), RATE)
    data = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    names = ["text.wav", "empty.wav", "none.wav", "nan.wav", "cut.flac", "missing.wav"]
    paths = [clip, *(tmp_path / name for name in names), clip.with_name(clip.name)]
    answers = list(predict(predictor, paths))
    assert [bool(answer.failure) for answer in answers] == [False] + 6 * [True]
    texts = [answer.failure for answer in answers]
    assert "text.wav is no recording that can be read" in texts[1]
    assert "none.wav holds no samples" in texts[3]
    assert "nan.wav holds values that are no numbers" in texts[4]
    assert "missing.wav does not exist" in texts[6]
    assert "cut.flac cannot be decoded after 1" in texts[5] or "cut.flac cannot be decoded after 2" in texts[5]
    assert len(answers[5].predictions) >= 16  # what came before the damage is predicted
    assert repr(answers[5]).endswith(answers[5].failure)
    with pytest.warns(UserWarning, match="cut.flac cannot be decoded after"):
        assert len(predictor(tmp_path / "cut.flac").predictions) == len(answers[5].predictions)
    with pytest.raises(AudioError, match="does not exist"):
        predictor(tmp_path / "missing.wav")
    with pytest.raises(AudioError, match="no recording"):
        list(predictor.predictions(tmp_path / "text.wav"))


def test_summaries_add_up(predictor: Predictor) -> None:
    sound = np.concatenate([noise(2), np.zeros(RATE, np.float32)])
    events = list(predictor.stream([array_source(sound, RATE)], Options()))
    summary = events[-1]
    assert isinstance(summary, Summary)
    assert sum(summary.counts.values()) == 3 and summary.counts["silence"] == 1
    expected = np.mean([e.probabilities for e in events[:2] if isinstance(e, Prediction)], axis=0)
    np.testing.assert_allclose(summary.probabilities, expected, atol=1e-6)
    assert summary.as_prediction().end_seconds == 3.0


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"segment_seconds": 2}, "segment=2 s is longer than this model's clip length, 1 s"),
        ({"hop_seconds": 0}, "hop_seconds=0 is out of range: 0.01 to 86400 is allowed"),
        (
            {"hop_seconds": float("nan")},
            "hop_seconds=nan in the options of prediction is not allowed",
        ),
        ({"tta_shifts": 65}, "tta_shifts=65 is out of range: 1 to 64 is allowed"),
        ({"tta_shifts": 0}, "tta_shifts=0 is out of range: 1 to 1024"),
        ({"tta_speeds": (1.0,)}, "tta_speeds=[1.0] is not allowed: each must be from 0.25 to 4, other than 1"),
        ({"batch": 0}, "batch=0 is out of range"),
        ({"top_k": 0}, "top_k=0 is out of range"),
        ({"threshold": 1.5}, "threshold=1.5 is out of range: 0 to 1"),
        ({"threshold": {"sirn": 0.5}}, "no class 'sirn', so it can have no threshold. Did you mean 'siren'?"),
        ({"hops": 1}, "Unknown key 'hops' in the options of prediction"),
        ({"rate": 8000}, "tells its own sample rate"),
    ],
)
def test_options_are_checked(predictor: Predictor, clip: Path, how: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError) as caught:
        predictor(clip, **how)
    assert match in str(caught.value)


def test_arrays_are_checked(predictor: Predictor) -> None:
    with pytest.raises(ConfigError, match=r"An array does not tell its sample rate; pass it too"):
        predictor(noise(1))
    with pytest.raises(AudioError, match="rate=-1 Hz is not allowed"):
        predictor(noise(1), -1)
    with pytest.raises(AudioError, match="no recording"):
        predictor(np.zeros((2, 2, 2)), RATE)
    with pytest.raises(AudioError, match="no numbers"):
        predictor(np.full(100, np.inf), RATE)


def test_other_ears_are_possible_but_recorded(tiny_model: Path, clip: Path, tmp_path: Path) -> None:
    own = load(tiny_model, device="cpu", spectrogram=TINY_EARS)
    assert own(clip).to_rows(1)[0]["settings"] == "own"
    other = load(tiny_model, device="cpu", spectrogram=replace(TINY_EARS, db_floor=-60.0))
    assert other(clip).to_rows(1)[0]["settings"] == "override"
    with pytest.raises(ModelError, match="trained on images of 64 pixels, but .* image_size=96"):
        load(tiny_model, device="cpu", spectrogram=replace(TINY_EARS, image_size=96))
    import torch

    deaf = load_checkpoint(tiny_model)
    for key in ("ema", "model"):
        if deaf.get(key) is not None:
            del deaf[key].soundsight
    path = tmp_path / "deaf.pt"
    torch.save(deaf, path)
    with pytest.raises(ModelError, match="does not say how its spectrograms were rendered"):
        load(path)
    assert load(path, device="cpu", spectrogram=TINY_EARS)(clip).to_rows(1)[0]["settings"] == "override"


def test_vectors_are_what_the_last_layer_sees(predictor: Predictor, clip: Path) -> None:
    (vector,) = predictor.embed(clip)
    assert vector.vector.shape == (1280,)
    layer = predictor.classifier.network.model[-1].linear
    weights, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    (window,) = predictor(clip).predictions
    np.testing.assert_allclose(softmax((weights @ vector.vector + bias)[None])[0], window.probabilities, atol=1e-5)


def test_words_name_recordings(tmp_path: Path) -> None:
    for name in ("b.wav", "a.flac", "sub/c.WAV", ".hidden.wav", ".git/d.wav", "notes.txt", "[x].wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(*words: str) -> list[str]:
        return [str(path.relative_to(tmp_path)) for path in expand(tmp_path / word for word in words)]

    assert names(".") == ["[x].wav", "a.flac", "b.wav", "sub/c.WAV"]
    assert names("*.wav") == ["[x].wav", "b.wav"]
    assert names("[x].wav") == ["[x].wav"]
    assert names("**/*.WAV", "b.wav", "b.wav") == ["sub/c.WAV", "b.wav"]
    assert names("notes.txt") == ["notes.txt"]
    assert names("*.ogg") == ["*.ogg"]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(AudioError, match="holds no recordings"), file_source(tmp_path / "nothing").open():
        pass


def test_patterns_find_what_glob_finds_however_often_their_parts_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `glob.glob` the last ones take longer than there is time."""
    monkeypatch.chdir(tmp_path)
    for name in ("x.wav", "a/b/c/x.wav", "a/d/x.wav", "e/f/x.wav", ".h/x.wav", "a/y[1].wav"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    (tmp_path / "e" / "link").symlink_to(tmp_path / "a")
    below = {os.path.normpath(path) for path in glob.glob("**/*.wav", recursive=True)}
    assert len(below) == 5 + 3  # through the link, too
    for pattern in ("*", "**", "**/*.wav", "a/**", "*/../*.wav", "**/b/**/*.wav", f"{tmp_path}/**/*.wav",
                    "a/y[[]1].wav", "**/.h/*", "./*", "a//b/*", "[ae]/**/x*", "no*"):  # fmt: skip
        for folder in ("", str(tmp_path)):
            normal = (os.path.normpath(path) for path in matching(pattern, folder))
            assert set(normal) == set(map(os.path.normpath, glob.glob(pattern, recursive=True))), pattern
    assert {os.path.normpath(path) for path in matching("**/" * 60 + "*.wav")} == below
    assert expand(["*/../" * 60 + "*.wav"]) and matching("**/*/" * 60 + "*.wav") == []


def test_the_package_offers_it(predictor: Predictor, clip: Path) -> None:
    assert soundsight.load is load
    for _ in range(2):  # the name is that of a room, too
        assert [answer.recording for answer in soundsight.predict(predictor, [clip])] == [str(clip)]
    assert isinstance(SpectrogramConfig(), soundsight.SpectrogramConfig)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of threads")
def test_the_same_threads_draw_again_and_again(tiny_model):
    """OpenCV never forgets a thread that used it, so new ones for each recording would fill a server's memory."""
    predictor = load(tiny_model, device="cpu", threads=1)
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 48000).astype(np.float32)

    def drawing() -> set[int | None]:
        predictor(sound, rate=16000, hop_seconds=0.25)
        return {thread.ident for thread in threading.enumerate() if thread.name.startswith("soundsight-draw")}

    first = drawing()
    assert first and all(drawing() == first for _ in range(3))
