"""Read models: the state and the history, turned into what people read."""
