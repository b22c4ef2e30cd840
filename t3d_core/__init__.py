"""The method of "Temporal 3D ConvNets" (Diba et al.) in plain PyTorch: it runs on one CPU and knows no cluster."""
