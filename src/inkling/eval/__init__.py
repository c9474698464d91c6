"""Numbers about a model, beside the floors that give them a meaning."""
