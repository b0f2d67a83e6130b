"""Real servers on loopback, which end with whoever started them."""
