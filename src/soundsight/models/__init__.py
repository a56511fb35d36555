"""Trained models as functions from images to logits: loading and ensembles.

`readers` holds one file per format. Nothing here trains, and nothing knows recordings.
"""
