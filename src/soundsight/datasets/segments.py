"""Windows: long recordings cut into clips, after the split and never before.

A window inherits label, fold and source of its recording, so all of them stay on one side of every split.
Only what is needed to know their lengths is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from soundsight import audio, parallel
from soundsight.config import DatasetConfig
from soundsight.datasets.annotations import cut_rows, cut_segments
from soundsight.datasets.catalogue import Catalogue, Clip, read_catalogue
from soundsight.datasets.split import assign
from soundsight.errors import AudioError

# Below this many recordings, starting worker processes takes longer than reading the headers.
FEW = 10_000


def split_and_cut(
    config: DatasetConfig, clip_seconds: float, *, workers: int | None = None, run: parallel.Run = parallel.run
) -> tuple[Catalogue, dict[Clip, str]]:
    """The clips of a data set, and the split of each that has one: decided for whole recordings, before any is cut."""
    catalogue = read_catalogue(config)
    splits = assign(catalogue, config.split, clip_seconds)
    catalogue, recording_of = cut_windows(catalogue, clip_seconds, workers=workers, run=run)
    return catalogue, {clip: splits[recording] for clip, recording in recording_of.items() if recording in splits}


def cut_windows(
    catalogue: Catalogue, clip_seconds: float, *, workers: int | None = None, run: parallel.Run = parallel.run
) -> tuple[Catalogue, dict[Clip, Clip]]:
    """Cut whole recordings, and annotated stretches longer than a clip, into clips.

    Returns:
        The catalogue of windows, with the damage of recordings among its failures, and the recording that each
        window was cut from.
    """
    if catalogue.cutting:
        return _cut_annotated(catalogue, clip_seconds, workers, run)
    if not catalogue.whole_recordings:
        return catalogue, {clip: clip for clip in catalogue.clips}
    found = measure(catalogue.clips, workers=workers, run=run)
    recording_of = {window: clip for clip in catalogue.clips for window in cut_clip(clip, found[clip][0], clip_seconds)}
    damaged = ((clip.file, damage) for clip, (seconds, damage) in found.items() if damage and seconds is not None)
    failures = [*catalogue.failures, *damaged]
    return replace(catalogue, clips=list(recording_of), failures=failures, whole_recordings=False), recording_of


def cut_clip(clip: Clip, duration_seconds: float | None, clip_seconds: float) -> list[Clip]:
    """Windows of one recording, end to end, without overlap.

    A rest shorter than `audio.LEAST_SHARE` of a window is left out, a longer one becomes a window that is padded.
    A recording that yields one window stays as it is, as does one whose duration is not known.
    """
    if duration_seconds is None or clip.end_seconds is not None:
        return [clip]
    count, rest = divmod(duration_seconds - clip.start_seconds, clip_seconds)
    count = int(count) + (rest >= audio.LEAST_SHARE * clip_seconds)
    if count <= 1:
        return [clip]
    starts = [round(clip.start_seconds + index * clip_seconds, 6) for index in range(count)]
    return [
        replace(
            clip,
            name=f"{clip.name}@{start:.1f}",
            start_seconds=start,
            end_seconds=round(min(start + clip_seconds, duration_seconds), 6),
        )
        for start in starts
    ]


def _cut_annotated(
    catalogue: Catalogue, clip_seconds: float, workers: int | None, run: parallel.Run
) -> tuple[Catalogue, dict[Clip, Clip]]:
    """Cut annotated recordings by their own rules."""
    rules = catalogue.cutting
    assert rules is not None
    if rules.cut == "rows":
        cut = cut_rows(catalogue.clips, rules, clip_seconds)
    else:
        first = {clip.file: clip for clip in reversed(catalogue.clips)}
        found = measure(list(first.values()), workers=workers, run=run)
        cut = cut_segments(catalogue.clips, rules, clip_seconds, {clip.file: found[clip] for clip in first.values()})
    return replace(
        catalogue,
        clips=list(cut.row_of),
        failures=[*catalogue.failures, *cut.failures],
        notes=[*catalogue.notes, *cut.notes],
        multi=cut.multi,
        annotated=rules.cut == "segments" and any(row.end_seconds is not None for row in catalogue.clips),
        cutting=None,
    ), cut.row_of


def measure(
    clips: Sequence[Clip], *, workers: int | None = None, run: parallel.Run = parallel.run
) -> dict[Clip, tuple[float | None, str]]:
    """Length in seconds and damage of each clip's recording; if it cannot be read, `None` and why."""
    few = len(clips) < FEW
    results = (parallel.run if few else run)(_measure, clips, workers=1 if few else workers)
    return {clip: (None, str(found)) if isinstance(found, parallel.WorkerLost) else found for clip, found in results}


def _measure(clip: Clip) -> tuple[float | None, str]:
    try:
        with clip.opened() as recording:
            return recording.info.duration_seconds, recording.damage
    except AudioError as error:
        return None, str(error)
