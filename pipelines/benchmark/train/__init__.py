"""The train stage: input, steps, memory."""
