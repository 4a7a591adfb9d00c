"""What a server does under a load: its step times, and requests through it."""
