"""Decoding beside its peers."""
