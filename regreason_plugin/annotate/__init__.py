"""Raters: scores and explanations, and how they become one label and one explanation."""
