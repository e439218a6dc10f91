"""Scripts that answer one question each: what a supernet, an operator or a draw is worth."""
