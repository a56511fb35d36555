"""crowsetta's generic-seq format."""

from soundsight.datasets.tables.layout import Layout, register

register(
    Layout(
        "crowsetta table",
        header=("onset_s", "offset_s", "notated_path"),
        file=("notated_path",),
        label=("label",),
        start=("onset_s",),
        end=("offset_s",),
    )
)
