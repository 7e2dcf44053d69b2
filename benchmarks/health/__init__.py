"""Trainings with planted faults, and healthy ones: what sg.health and other tools say of them."""
