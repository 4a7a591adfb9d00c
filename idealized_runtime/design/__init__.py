"""What to time next, and when to stop: the settings that narrow the interval of what is asked for, per device second.

``belief`` is what is known of t(p, o), before and after timings; ``targets`` is what shall be known, and how well it
is; ``sequential`` chooses the next settings and says when to stop.
"""
