"""The once-for-all supernet: elastic layers, training, evaluation, sampling."""
