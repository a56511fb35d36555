"""A table of anyone's own: pandas, R, Excel, a text editor."""

from soundsight.dataset.tables.layout import Layout, register

register(Layout("table"))
