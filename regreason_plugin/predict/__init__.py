"""Labels new rows with a trained classifier: labels, probabilities and optional explanations."""
