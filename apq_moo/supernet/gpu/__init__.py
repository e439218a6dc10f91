"""The same networks on a GPU: Triton kernels, fast evaluation and fast training.

Activations are stored channel by channel, ``(channels, n * height * width)``, each row padded to a
multiple of :data:`~apq_moo.supernet.gpu.sizes.PITCH` elements. A pointwise convolution is then
one matrix product, a depthwise convolution a product of whole planes (or windows of them) with a
band matrix made from its kernel, and a channel's statistics are sums over one row.
"""
