"""What a registered model came from, proven link by link."""
