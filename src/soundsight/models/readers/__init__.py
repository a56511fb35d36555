"""Readers of model files, one file per format; a new file here is found by `models.load`.

Each module has `KINDS`, the endings it reads ("folder" for a folder), and `read`, which takes what `load_classifier`
takes. Heavy libraries are imported when a file is read, not before.
"""
