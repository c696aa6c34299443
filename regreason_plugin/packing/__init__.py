"""Packs texts that share a prefix into one row of a batch, for scoring and for training."""
