"""The prepare stage: rates, shares, memory."""
