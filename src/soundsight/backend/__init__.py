"""The only package that touches Ultralytics: training, inference on images, checkpoints, export.

Import its modules where they are used: each of them loads PyTorch.
"""
