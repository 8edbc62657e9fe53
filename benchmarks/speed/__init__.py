"""What the speed benchmarks share: LLaVA's lengths, a world to train in, one timed run, how a figure was made."""
