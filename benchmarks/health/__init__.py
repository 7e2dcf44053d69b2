"""Trainings with planted faults, and healthy ones: what sg.health says of them, and what the rules of other tools say."""
