"""Statistics that several rooms need: intervals, draws, summaries of errors, tests on samples."""
