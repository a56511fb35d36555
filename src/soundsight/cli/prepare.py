"""Render recordings as spectrogram images and lay them out for training.

soundsight prepare                              # configs/esc50.yaml, configs/spectrogram.yaml
soundsight prepare root=/data/ESC-50            # the data set lies elsewhere; nothing is written there
soundsight prepare my_sounds/                   # own data: my_sounds/<class>/*.wav
soundsight prepare recordings/ table=labels.csv # a table of labels; Raven, Audacity, BirdNET, ... are known
soundsight prepare image_size=256 data=data256  # other images in another folder
soundsight prepare --gallery gallery.png        # and one readable spectrogram a class
soundsight prepare --engine ray --address 10.0.0.1:6379   # on the nodes of a Ray cluster
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from soundsight import checks, parallel
from soundsight.cli import console, engine, outputs
from soundsight.cli.options import Given
from soundsight.config import ClusterConfig, DatasetConfig, SpectrogramConfig
from soundsight.config.commands import PrepareOptions
from soundsight.datasets import manifest

if TYPE_CHECKING:
    from soundsight.datasets.prepare import Prepared

OPTIONS = PrepareOptions
SETTINGS = (DatasetConfig, SpectrogramConfig, ClusterConfig)


def run(options: PrepareOptions, given: Given) -> int:
    console.check_ending(options.gallery, *console.FIGURES)
    config, spectrogram = console.data_settings(options, given)
    checks.check_data(config.root)
    checks.check_writable(config.data)
    checks.check_writable(config.cache)
    cluster = engine.cluster_settings(given)
    if cluster.engine == "local":
        parallel.warm_up("soundsight.datasets.images", workers=options.workers)  # they load while this process does
    from soundsight.datasets.prepare import prepare

    with ExitStack() as stack:
        galleries = [options.gallery] if options.gallery else []
        inputs = [options.dataset, options.spectrogram]
        stack.enter_context(outputs.claimed(options, galleries, outputs.figure(outputs.GALLERY), inputs))
        run = parallel.run
        if cluster.engine == "ray":
            config = replace(config, root=os.path.abspath(config.root), cache=os.path.abspath(config.cache))
            joined = stack.enter_context(engine.joined(cluster, read=[config.root], write=[config.cache]))
            run = engine.runner(joined, cluster)
        show = stack.enter_context(console.progress_bar("drawing", "clips"))
        done = console.call(prepare, options, config, spectrogram, replace_data=options.replace, progress=show, run=run)
    describe(done)
    if options.gallery:
        plot_gallery(done, options.gallery)
        console.output(f"Contact sheet: {options.gallery}")
    where = f"all are listed in {done.data / manifest.FAILURES}"
    code = console.list_failures(done.failures, f"clip{'s' * (len(done.failures) > 1)} failed", where)
    if done.problem:
        console.status(f"soundsight: {done.data} is no data to train on: {done.problem}.")
        return 2
    return code


def describe(done: Prepared) -> None:
    """Say what was prepared, and whether its splits can be trusted."""
    counts = ", ".join(f"{number} {split}" for split, number in done.counts.items())
    classes = f"{len(done.labels)} classes"
    if done.multi:
        classes += f" (multi-label), {done.background} clips of background"
    rate = f" at {done.rendered / done.seconds:.0f} clips/s" if done.rendered else ""
    console.output(f"{done.rendered} images rendered{rate}, {done.kept} up to date; {classes}.")
    more = f", and {done.versions} more of train at other speeds" if done.versions else ""
    console.output(f"{done.data}: {counts}{more}.")
    if not done.counts["test"] and done.counts["val"]:
        console.output("No clip is left for test, so only `val --split val` can score.")
    for note in done.notes:
        console.output(note)
    for tone, text in done.findings:
        console.output(f"{console.MARKS[tone]} {text}")


def plot_gallery(done: Prepared, path: str) -> None:
    """One readable spectrogram a class, of the first clip that was rendered."""
    from soundsight import audio
    from soundsight import reports as report
    from soundsight.errors import AudioError

    spectrogram = manifest.read_spectrogram(done.data)
    root = Path(manifest.read_settings(done.data)["dataset"]["root"])
    items = []
    rows = manifest.read_rows(done.data / manifest.MANIFEST)
    for label in done.labels:
        for row in (row for row in rows if label in row.labels(multi=done.multi)):
            seconds = row.shown_until(spectrogram.clip_seconds) - row.start_seconds
            try:
                waveform = audio.read(
                    root / row.file,
                    sample_rate=spectrogram.sample_rate,
                    start_seconds=row.start_seconds,
                    duration_seconds=seconds,
                )
            except AudioError:
                continue
            items.append((label.replace("_", " "), waveform))
            break
    report.plot_gallery(items, spectrogram, path, creator=outputs.GALLERY)
