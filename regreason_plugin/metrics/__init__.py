"""Every formula of a metric, once."""
