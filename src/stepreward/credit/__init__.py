"""From step rewards to advantages."""
