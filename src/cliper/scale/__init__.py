"""Folders, lists, archives and videos of any number of pictures, on one machine or many."""
