"""Joint search for architecture, channel pruning and quantisation policy.

The package covers the whole path of APQ (Wang et al., CVPR 2020): a once-for-all supernet, accuracy
predictors trained on its samples, cost tables of an accelerator, and a mixed-integer pymoo problem
over all of it. Each subpackage is one room:

* :mod:`apq_moo.space`: the search space and its integer encoding
* :mod:`apq_moo.data`: images, sample tables and shipped assets
* :mod:`apq_moo.hardware`: cost models and their block tables
* :mod:`apq_moo.predictors`: accuracy predictors
* :mod:`apq_moo.supernet`: elastic network, training and evaluation (needs torch only)
* :mod:`apq_moo.problems`: the pymoo ``APQProblem``
* :mod:`apq_moo.algorithms`: APQ's evolution and operators that know the space
* :mod:`apq_moo.study`: one search, from configuration to a run folder
* :mod:`apq_moo.pipeline`: from raw images to a verified front
"""

__version__ = "0.1.0"
