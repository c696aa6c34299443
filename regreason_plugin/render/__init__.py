"""Renders a comparison as pages, figures and tables, and computes no statistic."""
