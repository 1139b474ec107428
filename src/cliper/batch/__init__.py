"""Segments any number of images into the files of any formats: a task of :mod:`cliper.runner`."""
