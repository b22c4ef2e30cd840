"""The loop, the workers and the named runs that train and transfer share."""
