"""`regreason check`: checks a config and estimates its training, before anything is trained."""
