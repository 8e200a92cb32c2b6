"""What a pool of samples says of a budget: selectors by definition, and how each is estimated. Pure."""
