"""``idealized-runtime api``: time a model behind an API, and say what was timed."""
