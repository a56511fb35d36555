"""One's own recordings: in a folder for each class, or described by a table."""

from __future__ import annotations

from soundsight.datasets.catalogue import Kind, register
from soundsight.datasets.folder import read_folder
from soundsight.datasets.tables.reading import read_table

register("folder", Kind(lambda root, config: read_folder(root, group_pattern=config.group_pattern)))
register("table", Kind(read_table))
