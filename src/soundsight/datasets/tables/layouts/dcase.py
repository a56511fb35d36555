"""Sound events as DCASE, DESED and sed_eval write them."""

from soundsight.datasets.tables.layout import LABEL, Layout, register

register(
    Layout(
        "DCASE event table",
        header=("onset", "offset"),
        label=("event_label", "event_labels", *LABEL),
        start=("onset",),
        end=("offset",),
    )
)
