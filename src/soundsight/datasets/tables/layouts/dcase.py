"""Sound events as DCASE, DESED and sed_eval write them."""

from soundsight.datasets.tables.layout import Layout, register

register(
    Layout(
        "DCASE event table",
        header=("onset", "offset"),
        label=("event_label", "event_labels", "label"),
        start=("onset",),
        end=("offset",),
    )
)
