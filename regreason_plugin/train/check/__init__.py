"""`regreason check`: what runs before a training."""
