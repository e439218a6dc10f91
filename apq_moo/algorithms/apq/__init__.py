"""APQ's evolution (Wang et al., CVPR 2020), as in the paper and as released."""
