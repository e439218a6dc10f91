"""The once-for-all supernet: elastic layers, training, evaluation, sampling."""

from apq_moo.extras import require

require("torch", "the supernet")
