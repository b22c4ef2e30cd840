"""Supervision transfer 2D -> 3D by image-video correspondence (paper 3.2)."""
