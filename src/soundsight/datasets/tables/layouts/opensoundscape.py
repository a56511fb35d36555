"""opensoundscape: annotations with one row each. Its tables with one column per class are known by their content."""

from soundsight.datasets.tables.layout import Layout, register

register(
    Layout(
        "opensoundscape annotation table",
        header=("audio_file", "annotation", "start_time", "end_time"),
        file=("audio_file",),
        label=("annotation",),
    )
)
