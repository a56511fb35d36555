"""The only room that touches Ultralytics: training, inference on pictures, checkpoints, export.

Import its modules where they are used: each of them loads PyTorch.
"""
