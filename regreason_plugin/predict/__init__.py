"""A trained classifier on new rows: labels, probabilities and, on request, explanations."""
