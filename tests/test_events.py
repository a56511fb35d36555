"""Figures of timed events: against what can be counted by hand, plain code, and sed_eval where it is installed."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundsight.backend.checkpoint import Preprocessing
from soundsight.config import SpectrogramConfig
from soundsight.errors import ConfigError
from soundsight.evaluation.events import Event, event_counts, false_alarms, joined, segment_counts, segment_targets
from soundsight.inference.events import detect, merge
from soundsight.inference.options import Options, decide, off_thresholds, resolve
from soundsight.inference.results import Model, Prediction, Summary, Tally

NAMES = ("dog", "rain")
TRUTH = {"a": [Event(1.0, 2.0, "dog"), Event(4.0, 9.0, "rain")], "b": []}
FOUND = {
    "a": [Event(1.1, 2.1, "dog"), Event(5.0, 9.0, "rain"), Event(7.0, 8.0, "dog")],
    "b": [Event(0.0, 1.0, "dog")],
}

quarters = st.integers(0, 40).map(lambda k: k / 4)
event = st.tuples(quarters, st.integers(1, 12), st.sampled_from(NAMES)).map(
    lambda parts: Event(parts[0], parts[0] + parts[1] / 4, parts[2])
)
recordings = st.fixed_dictionaries({"a": st.lists(event, max_size=5), "b": st.lists(event, max_size=5)})


def test_segments_by_hand():
    counts = segment_counts(TRUTH, FOUND, NAMES, segment_seconds=1.0)
    # Dog: segment 1 is right; 2 (touched for 0.1 s), 7 and that of the other recording are not. Rain: 5 to 8, not 4.
    assert counts.hits.tolist() == [1, 4]
    assert counts.false.tolist() == [3, 0]
    assert counts.missed.tolist() == [0, 1]


def test_events_by_hand():
    counts = event_counts(TRUTH, FOUND, NAMES, collar_seconds=0.2, collar_fraction=0.2)
    assert counts.hits.tolist() == [1, 0]  # the rain begins a second late
    assert counts.false.tolist() == [2, 1]
    assert counts.missed.tolist() == [0, 1]
    assert event_counts(TRUTH, FOUND, NAMES, collar_seconds=1.0).hits.tolist() == [1, 1]
    late = {"a": [Event(4.0, 8.2, "rain")]}  # offset 0.8 s early: more than the collar, less than 20 % of 5 s
    assert event_counts(TRUTH, late, NAMES).hits.tolist() == [0, 1]
    assert event_counts(TRUTH, late, NAMES, collar_fraction=0.1).hits.tolist() == [0, 0]


def test_false_alarms_by_hand():
    assert false_alarms(TRUTH, FOUND, NAMES).tolist() == [2, 0]
    assert false_alarms({"a": []}, {}, NAMES).tolist() == [0, 0]


def test_neighbours_of_one_class_are_one_event():
    events = [Event(5, 10, "dog"), Event(0, 5, "dog"), Event(0, 5, "rain"), Event(11, 12, "dog"), Event(6, 7, "dog")]
    assert joined(events) == [Event(0, 10, "dog"), Event(0, 5, "rain"), Event(11, 12, "dog")]


def test_a_segment_needs_enough_of_an_event():
    there = [Event(4.9, 5.0, "dog"), Event(9.9, 14.0, "rain")]
    targets, certain = segment_targets(there, [(0, 5), (5, 10), (10, 15)], NAMES, least_seconds=0.25)
    assert targets.tolist() == [[True, False], [False, False], [False, True]]  # all of the short dog is in the first
    assert certain.tolist() == [[True, True], [True, False], [True, True]]  # 0.1 s of four seconds of rain


@settings(deadline=None, max_examples=60)
@given(recordings, recordings, st.sampled_from([0.25, 0.5, 1.0]))
def test_segments_agree_with_plain_code(truth, found, seconds):
    counts = segment_counts(truth, found, NAMES, segment_seconds=seconds)
    for c, name in enumerate(NAMES):
        tally = {(True, True): 0, (False, True): 0, (True, False): 0, (False, False): 0}
        for recording in truth:
            for k in range(round(14 / seconds)):
                low, high = k * seconds, (k + 1) * seconds
                inside = [
                    any(e.label == name and e.start < high and low < e.end for e in events[recording])
                    for events in (truth, found)
                ]
                tally[tuple(inside)] += 1
        assert (counts.hits[c], counts.false[c], counts.missed[c]) == (
            tally[True, True],
            tally[False, True],
            tally[True, False],
        )


@settings(deadline=None, max_examples=60)
@given(recordings, recordings, st.sampled_from([0.0, 0.25, 0.5]), st.sampled_from([0.0, 0.5]))
def test_events_agree_with_plain_code(truth, found, collar, fraction):
    """All ways to pair events, each tried."""
    counts = event_counts(truth, found, NAMES, collar_seconds=collar, collar_fraction=fraction)

    def fit(one, other):
        length = one.end - one.start
        return abs(one.start - other.start) <= collar and abs(one.end - other.end) <= max(collar, fraction * length)

    for c, name in enumerate(NAMES):
        best = 0
        for recording in truth:
            there, here = ([e for e in events[recording] if e.label == name] for events in (truth, found))
            few, many, swapped = (there, here, False) if len(there) <= len(here) else (here, there, True)
            best += max(
                sum(fit(b, a) if swapped else fit(a, b) for a, b in zip(few, chosen, strict=True))
                for chosen in permutations(many, len(few))
            )
        assert counts.hits[c] == best
        assert counts.hits[c] + counts.missed[c] == sum(e.label == name for r in truth for e in truth[r])
        assert counts.hits[c] + counts.false[c] == sum(e.label == name for r in found for e in found[r])


@settings(deadline=None, max_examples=30)
@given(recordings, recordings)
def test_both_agree_with_sed_eval(truth, found):
    """Field by field with the tool of DCASE's tasks; it is not among our own dependencies."""
    sed_eval = pytest.importorskip("sed_eval", reason="install soundsight[score-test]")
    from dcase_util.containers import MetaDataContainer

    def container(events, recording):
        rows = [{"onset": e.start, "offset": e.end, "event_label": e.label, "file": recording} for e in events]
        return MetaDataContainer(rows)

    segments = sed_eval.sound_event.SegmentBasedMetrics(list(NAMES), time_resolution=0.5)
    events = sed_eval.sound_event.EventBasedMetrics(list(NAMES), t_collar=0.25, percentage_of_length=0.5)
    for recording in truth:
        pair = container(truth[recording], recording), container(found[recording], recording)
        segments.evaluate(*pair)
        events.evaluate(*pair)
    ours = (
        segment_counts(truth, found, NAMES, segment_seconds=0.5),
        event_counts(truth, found, NAMES, collar_seconds=0.25, collar_fraction=0.5),
    )
    for counts, theirs in zip(ours, (segments, events), strict=True):
        for c, name in enumerate(NAMES):
            values = theirs.class_wise[name]
            assert (counts.hits[c], counts.false[c], counts.missed[c]) == (values["Ntp"], values["Nfp"], values["Nfn"])
        overall = np.nan_to_num(theirs.results_overall_metrics()["f_measure"]["f_measure"])
        assert counts.micro[2] == pytest.approx(overall)


# --- segments into events


def stream(rows, *, seconds=1.0, hop=1.0, multi=False):
    """Segments with the probabilities of dog and rain, and the summary; the best class, or each, counts from 0.5 on."""
    model = Model(NAMES, "0", "own", multi)
    tally = Tally("a", model)
    for k, row in enumerate(rows):
        values = np.array(row, np.float32)
        label, probability, labels = decide(values, False, NAMES, np.array([0.5, 0.5]), multi=multi)
        start = k * hop
        segment = Prediction("a", start, start + seconds, label, probability, values, False, model, labels=labels)
        tally.add(segment)
        yield segment
    yield tally.summary((len(rows) - 1) * hop + seconds, "", np.zeros(2, np.float32))


def events_of(rows, *, seconds=1.0, hop=1.0, multi=False, off_threshold=None, **how):
    model = Preprocessing(NAMES, SpectrogramConfig(), labels="multi" if multi else "single")
    off = off_thresholds(resolve(Options(threshold=0.5, off_threshold=off_threshold), model), model)
    *found, summary = detect(stream(rows, seconds=seconds, hop=hop, multi=multi), off_thresholds=off, **how)
    assert isinstance(summary, Summary)
    return [(event.start_seconds, event.end_seconds, event.label) for event in found], found


def dogs(*values):
    return [(value, 0.0) for value in values]


def test_hysteresis_bridges_weak_segments():
    rows = dogs(0.1, 0.4, 0.9, 0.4, 0.45, 0.2, 0.4, 0.1)
    assert events_of(rows, off_threshold=0.3)[0] == [(2.0, 5.0, "dog")]
    assert events_of(rows, off_threshold=0.5)[0] == [(2.0, 3.0, "dog")]
    (event,) = events_of(rows, off_threshold=0.3)[1]
    assert event.probability == pytest.approx((0.9 + 0.4 + 0.45) / 3)


def test_short_gaps_are_filled_before_short_events_are_dropped():
    rows = dogs(0.9, 0.1, 0.9, 0.1, 0.1, 0.9)
    assert events_of(rows, min_gap_seconds=1.5)[0] == [(0.0, 3.0, "dog"), (5.0, 6.0, "dog")]
    assert events_of(rows, min_gap_seconds=1.5, min_event_seconds=1.5)[0] == [(0.0, 3.0, "dog")]
    assert events_of(rows, min_gap_seconds=1.0, min_event_seconds=1.0)[0] == [
        (0.0, 1.0, "dog"), (2.0, 3.0, "dog"), (5.0, 6.0, "dog"),
    ]  # fmt: skip


def test_classes_may_overlap_and_come_in_order():
    rows = [(0.9, 0.0), (0.55, 0.4), (0.4, 0.6), (0.0, 0.9), (0.9, 0.0)]
    assert events_of(rows, off_threshold=0.4)[0] == [(0.0, 3.0, "dog"), (2.0, 4.0, "rain"), (4.0, 5.0, "dog")]


def test_overlapping_segments_stand_for_the_hop_around_their_centres():
    rows = dogs(0.0, 0.0, 0.9, 0.9, 0.0, 0.0)
    assert events_of(rows, seconds=3.0, hop=0.5, min_gap_seconds=0.1)[0] == [(2.25, 3.25, "dog")]
    whole = events_of(dogs(0.9, 0.9), seconds=3.0, hop=0.5, min_gap_seconds=0.1)[0]
    assert whole == [(0.0, 3.5, "dog")]  # the first and the last also stand for the ends of the recording


def test_a_recording_without_events_is_not_lost():
    assert events_of(dogs(0.1, 0.2), min_event_seconds=0.5)[0] == [(0.0, 2.0, "unknown")]
    assert events_of(dogs(0.1, 0.2), multi=True)[0] == [(0.0, 2.0, "background")]


def test_several_labels_per_clip_are_merged_class_by_class():
    rows = [(0.9, 0.2), (0.8, 0.9), (0.1, 0.7), (0.1, 0.1), (0.6, 0.1)]
    *found, _ = merge(stream(rows, multi=True))
    spans = [(event.start_seconds, event.end_seconds, event.labels) for event in found]
    assert spans == [(0.0, 2.0, ("dog",)), (1.0, 3.0, ("rain",)), (4.0, 5.0, ("dog",))]
    assert [event.sounds for event in found[:1]] == [[("dog", pytest.approx(0.85))]]


def test_an_off_threshold_above_the_other_is_refused():
    with pytest.raises(ConfigError, match="off_threshold=0.7 is above the threshold from which an event begins, 0.5"):
        events_of(dogs(0.1), off_threshold=0.7)
    with pytest.raises(ConfigError, match="min_gap_seconds=-1 is out of range"):
        resolve(Options(min_gap_seconds=-1), Preprocessing(NAMES, SpectrogramConfig()))


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=1, max_size=25),
    st.sampled_from([None, 0.2, 0.5]),
    st.sampled_from([0.0, 1.0, 2.5]),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([1.0, 0.5]),
    st.booleans(),
)
def test_events_agree_with_plain_code_over_the_whole_recording(rows, off, gap, shortest, hop, multi):
    """Class by class with all segments at hand: mark, fill, drop."""
    rows = [(a / 10, b / 10) for a, b in rows]
    how = {"off_threshold": off, "min_gap_seconds": gap, "min_event_seconds": shortest}
    found, events = events_of(rows, hop=hop, multi=multi, **how)
    edges = [0.0, *(k * hop + 0.5 + hop / 2 for k in range(len(rows) - 1)), (len(rows) - 1) * hop + 1.0]
    expected = []
    for c, name in enumerate(NAMES):
        runs, active = [], False
        for k, row in enumerate(rows):
            first = int(np.argmax(row))
            active = ((multi or first == c) and row[c] >= 0.5) or (active and off is not None and row[c] >= off - 1e-7)
            if active and runs and runs[-1][1] == edges[k]:
                runs[-1][1] = edges[k + 1]
            elif active:
                runs.append([edges[k], edges[k + 1]])
        filled = []
        for run in runs:
            if filled and run[0] - filled[-1][1] < gap:
                filled[-1][1] = run[1]
            else:
                filled.append(run)
        expected += [(start, end, name) for start, end in filled if end - start >= shortest]
    assert sorted(expected) == sorted(found if expected else [])
    assert [event.start_seconds for event in events] == sorted(event.start_seconds for event in events)
