"""The scoring server: scores of steps, and outputs of a reward model's head."""
