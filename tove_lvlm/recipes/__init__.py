"""What the engine (train/) trains, a package for each recipe: LLaVA's two stages, and merging."""
