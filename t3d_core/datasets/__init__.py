"""Annotation files and folders become VideoRecords, one reader a data set."""
