"""What to time next, and when to stop: the settings that narrow the interval of what is asked for, per device second.

``targets`` is what shall be known, and how well it is; ``belief`` is what is known of t(p, o) before and after timings,
``deviations`` what of it is learned from other models and ``priors`` where it comes from; ``sequential`` chooses the
next settings and says when to stop; ``goal`` is what a sweep is told, and ``guards`` are what it notices.
"""
