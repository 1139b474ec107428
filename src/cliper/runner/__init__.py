"""Runs a task over many images: sources, engines, and a run directory with a manifest.

:mod:`cliper.batch` and :mod:`cliper.evaluation` are the tasks.
"""
