"""Decoding compared with other decoders."""
