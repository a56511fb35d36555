"""AudioSet's strong labels."""

from soundsight.datasets.tables.layout import Layout, register

register(
    Layout(
        "AudioSet table of strong labels",
        header=("segment_id", "start_time_seconds", "end_time_seconds"),
        file=("segment_id",),
        label=("label",),
    )
)
