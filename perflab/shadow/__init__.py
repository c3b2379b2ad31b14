"""Shadow traffic: the mark, the live-run list, the agent and the proof that production was not touched."""
