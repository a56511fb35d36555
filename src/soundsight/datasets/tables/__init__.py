"""Tables of labels: read by `reading.read_table`; `rows` opens the files, and each layout is one file in `layouts/`.

Nothing here decodes audio or decides splits.
"""
