"""Torture: what `soundsight` promises when files, disks, processes and strangers misbehave, tried at length.

Each module is one part and can be run alone; `python -m torture` runs them all and writes
`torture/results.json`. `make test` runs a short form of most parts (tests/test_torture.py).
"""
