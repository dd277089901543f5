"""The machine: its memory, its signals, and its errors as one line."""
