"""Unlabelled shards and a frozen 2D network become initial weights of a 3D network (paper 3.2)."""
