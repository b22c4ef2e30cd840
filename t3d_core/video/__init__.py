"""A video file becomes a clip tensor: decode, choose frames, crop, normalise."""
