"""Training on many ranks: the team, its guard, and what starts it."""
