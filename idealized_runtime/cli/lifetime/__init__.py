"""``idealized-runtime lifetime``: what to train."""
