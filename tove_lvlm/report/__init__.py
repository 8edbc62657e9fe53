"""One HTML page about training runs: reading what they left (`reading`, `findings`, `examples`), drawing, writing."""
