"""Time a model behind an API that speaks OpenAI's protocol, and say what was timed."""
