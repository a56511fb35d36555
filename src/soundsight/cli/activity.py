"""Count detections by hour and day, as a table and a figure.

soundsight activity predictions.csv --out activity.csv --plot activity.png
soundsight activity predictions.csv --timezone Europe/Berlin --threshold 0.8 --plot activity.png
soundsight activity predictions.csv --begin-time 'site7-%Y-%m-%d-%H%M' --out activity.csv
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from soundsight.cli import console, outputs
from soundsight.cli.options import Given
from soundsight.config.detections import ActivityOptions
from soundsight.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from soundsight.review.activity import Activity

OPTIONS = ActivityOptions
MADE = re.compile(rb"\Adate,hour,class,detections,recorded_minutes\n")
CREATOR = "Soundsight activity"


def run(options: ActivityOptions, given: Given) -> int:
    """Count."""
    from soundsight.audio.clock import Clock
    from soundsight.review.activity import activity

    console.check_ending(options.out, ".csv")
    console.check_ending(options.plot, *console.FIGURES)
    clock = Clock(options.begin_time, options.timezone)
    found = activity(options.predictions, clock, threshold=options.threshold, root=options.root)
    for name in options.classes:
        if name not in found.names:
            raise ConfigError(f"No {name!r} was detected.{did_you_mean(name, found.names, '')}")
    found = replace(found, names=options.classes or found.names)
    if options.out:
        with outputs.claimed(options, [options.out], MADE, [options.predictions]):
            found.write(Path(options.out))
    if options.plot:
        from soundsight.reports.activity import plot_activity

        with outputs.claimed(options, [options.plot], outputs.figure(CREATOR), [options.predictions]):
            plot_activity(found.names, found.recorded, found.counts, options.plot, creator=CREATOR)
    show(found)
    for name in found.without[:10]:
        console.status(f"  failed: it is not known when {name} began")
    if found.without:
        console.status(f"soundsight: {len(found.without)} recordings without a time are left out.")
    return 1 if found.without else 0


def show(found: Activity) -> None:
    """Print the sums by class, with the hour that has the most."""
    hours = sum(found.recorded.values()) / 60
    days = len({day for day, _ in found.recorded})
    console.output(f"{hours:.2f} hours recorded on {days} day{'s' * (days != 1)}.")
    width = max(5, *map(len, found.names))
    console.output(f"{'class':{width}}  detections  per hour  busiest hour")
    for name in found.names:
        by_hour: Counter[int] = Counter()
        for (label, (_, hour)), count in found.counts.items():
            if label == name:
                by_hour[hour] += count
        total = sum(by_hour.values())
        hour, most = max(by_hour.items(), key=lambda pair: pair[1]) if total else (0, 0)
        busiest = f"{hour:02}:00, {most}" if total else "-"
        console.output(f"{name:{width}}  {total:10}  {total / hours:8.2f}  {busiest}")
