"""A soak: trainings as processes, faults at random places, and the right end every time."""
