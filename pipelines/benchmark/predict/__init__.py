"""The predict stage: our predictions compared with what people run, and with the limits of the machine."""
