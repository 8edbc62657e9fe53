"""Pictures: the gate, usage, and examples of answers."""
