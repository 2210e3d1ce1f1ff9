"""Ways to spend compute with step scores, as flows over any policy and scorer."""
