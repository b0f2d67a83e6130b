"""Our metrics and those of Arc Institute's `cell-eval`, on the same cells."""
