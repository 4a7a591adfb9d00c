"""What tests of several files build: logs, frames, models, and servers with known answers."""
