"""Whether a model has earned its weight: it is examined on slates whose answer is known."""
