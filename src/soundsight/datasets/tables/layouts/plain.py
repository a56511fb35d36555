"""A table of anyone's own: pandas, R, Excel, a text editor."""

from soundsight.datasets.tables.layout import Layout, register

register(Layout("table"))
