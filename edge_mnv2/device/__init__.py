"""Which board this is, how it should be used (profiles) and how it is doing (health)."""
