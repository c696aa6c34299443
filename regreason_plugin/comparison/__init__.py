"""Results against each other: what is comparable, estimates, tests, the verdict, the gate."""
