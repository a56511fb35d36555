"""Synthesised sounds for the demo, the page's examples and the tests; knows nothing of images and models."""
