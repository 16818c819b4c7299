"""Training that cannot be poisoned: safe steps, checkpoints, and what a fitted model is worth."""
