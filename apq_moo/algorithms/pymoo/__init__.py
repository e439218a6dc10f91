"""pymoo's algorithms: variants of them, their parts, and the strategy that drives them."""
