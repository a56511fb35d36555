"""The options of commands that take a table of predictions: `clips`, `review`, `activity`."""

from __future__ import annotations

from typing import Literal

from soundsight.config import Real, Text, Whole, option
from soundsight.config.commands import (
    BEGIN_TIME,
    OVERWRITE,
    TIMEZONE,
    Flag,
    PageOptions,
    ScoreOptions,
    Texts,
    Thresholds,
    command,
)
from soundsight.errors import ConfigError


@command
class DetectionOptions:
    """A table of predictions, and which of its detections."""

    predictions: Text = option(..., "a table with probabilities that `predict` wrote", positional=True)
    root: Text | None = option(None, "where the recordings are, if they have moved", metavar="DIR")
    threshold: Thresholds = ScoreOptions.__pydantic_fields__["threshold"]  # type: ignore[attr-defined]


@command
class SampleOptions(DetectionOptions):
    sample: Literal["spread", "best", "uncertain", "random"] = option(
        "spread", "from ten bands of the score in turn, the highest scores, those nearest to 0.5, or any"
    )
    seed: Whole = option(0, "of what is random", 0, 2**31)


@command
class ClipsOptions(SampleOptions):
    out: Text = option(..., "a new folder, or one that `clips` made", metavar="FOLDER")
    number: Whole | None = option(None, "clips of each class, at most (default: all)", 1, 10**7)
    padding_seconds: Real = option(0.0, "more sound before and after", 0, 600, metavar="S", short="padding")
    format: Literal["wav", "flac"] = option("wav", "of the clips")
    overwrite: Flag = option(False, "write into a folder with other files")


@command
class ReviewOptions(PageOptions, SampleOptions):
    reviews: Texts = option(
        (), "where decisions are kept (default: PREDICTIONS.review.json); several, of several reviewers, are merged",
        metavar="FILE", repeated=True,
    )  # fmt: skip
    number: Whole | None = option(100, "detections of each class, at most", 1, 10**7)
    classes: Texts = option((), "further classes to choose from", metavar="NAME", repeated=True)
    context_seconds: Real = option(2.0, "sound before and after a detection", 0, 25, metavar="S", short="context")
    annotations: Text | None = option(None, "write what was reviewed as a label table for `prepare`", metavar="FILE")
    shares: Text | None = option(None, "write how much was right at which score, as .csv", metavar="FILE")
    precision: Real | None = option(
        None, "the score of each class at which a share of P is right (--precision 0.9)", 0.01, 0.999, metavar="P"
    )
    store: Text | None = option(None, "with --precision: store these thresholds in the model", metavar="MODEL")
    overwrite: Flag = option(False, OVERWRITE)

    def __post_init__(self) -> None:
        if self.store and self.precision is None:
            raise ConfigError("--store needs --precision P, the share that is to be right from the threshold on.")

    @property
    def outputs(self) -> bool:
        """Whether something is to be made of the decisions; else the page opens."""
        return (self.annotations, self.shares, self.precision) != (None, None, None)


@command
class ActivityOptions(DetectionOptions):
    out: Text | None = option(None, "write the table, as .csv", metavar="FILE")
    plot: Text | None = option(None, "write the figure, as .png, .pdf or .svg", metavar="FILE")
    begin_time: Text = option("auto", BEGIN_TIME, metavar="PATTERN")
    timezone: Text | None = option(None, TIMEZONE, metavar="ZONE")
    classes: Texts = option((), "only these", metavar="NAME", repeated=True)
    overwrite: Flag = option(False, OVERWRITE)
