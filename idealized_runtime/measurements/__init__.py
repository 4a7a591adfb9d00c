"""What was measured, by name: a folder of logs as timed models, published data, floors and rates of what was timed."""
