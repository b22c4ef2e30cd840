"""Where this process stands: Ray, pools, paths, whole files and locks, start checks."""
