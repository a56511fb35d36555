"""Runs: data, model and report put together. Each module is one command's work, for Python users too.

Imports all packages to its left; nothing but the command line and the page imports it.
"""
