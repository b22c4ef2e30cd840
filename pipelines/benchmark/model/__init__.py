"""Networks and their switches: operations, memory, time."""
