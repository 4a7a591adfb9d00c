"""Many queries at once: step times of a server, its scheduler, and what its users wait for."""
