"""Figures of timed events: against what can be counted by hand, plain code, and sed_eval where it is installed."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundsight.evaluation.events import Event, event_counts, false_alarms, joined, segment_counts, segment_targets

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
