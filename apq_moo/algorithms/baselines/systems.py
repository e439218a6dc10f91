"""The systems, where each comes from, and what it is in a line."""

from __future__ import annotations

from apq_moo.algorithms.baselines.amc import Amc
from apq_moo.algorithms.baselines.chamnet import ChamNet
from apq_moo.algorithms.baselines.controls import Greedy, Milp
from apq_moo.algorithms.baselines.dnas import Dnas
from apq_moo.algorithms.baselines.haq import Haq
from apq_moo.algorithms.baselines.proxylessnas import ProxylessNAS
from apq_moo.algorithms.baselines.spos import Spos
from apq_moo.algorithms.baselines.system import System
from apq_moo.algorithms.baselines.uniform import MobileNetV2Like, UniformBits, UniformWidth

_MOBILENETV2 = (
    "M. Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018"
)

SYSTEMS: tuple[tuple[type[System], str, str], ...] = (
    (
        MobileNetV2Like,
        _MOBILENETV2,
        "the space's network nearest to MobileNetV2, at 8 bits",
    ),
    (
        UniformWidth,
        _MOBILENETV2,
        "the widest multiple of the reference network that meets the limit",
    ),
    (
        UniformBits,
        "R. Krishnamoorthi, Quantizing Deep Convolutional Networks for Efficient Inference, 2018",
        "the most bits for all layers of the reference network that meet the limit",
    ),
    (
        Greedy,
        "Z. Dong et al., HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks, "
        "NeurIPS 2020",
        "from the reference network what saves most for its accuracy, by measured sensitivities",
    ),
    (
        Milp,
        "Z. Yao et al., HAWQ-V3: Dyadic Neural Network Quantization, ICML 2021",
        "the best network if sensitivities added up, by an integer program",
    ),
    (
        Spos,
        "Z. Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, "
        "ECCV 2020",
        "evolution of scored networks, none twice, limits kept by sampling",
    ),
    (
        ChamNet,
        "X. Dai et al., ChamNet: Towards Efficient Network Design through Platform-Aware Model "
        "Adaptation, CVPR 2019",
        "a Gaussian process grown by active sampling, then evolution on its predictions",
    ),
    (
        Amc,
        "Y. He et al., AMC: AutoML for Model Compression and Acceleration on Mobile Devices, ECCV "
        "2018",
        "an agent chooses the reference network's channels, never more than the limits leave",
    ),
    (
        Haq,
        "K. Wang et al., HAQ: Hardware-Aware Automated Quantization with Mixed Precision, CVPR "
        "2019",
        "an agent chooses the reference network's bits, decremented until the limits are met",
    ),
    (
        ProxylessNAS,
        "H. Cai et al., ProxylessNAS: Direct Neural Architecture Search on Target Task and "
        "Hardware, ICLR 2019",
        "depths, kernels and channels by gradients through binary gates and expected cost",
    ),
    (
        Dnas,
        "B. Wu et al., Mixed Precision Quantization of ConvNets via Differentiable Neural "
        "Architecture Search, 2018",
        "bits by gradients through mixtures of bit-widths and expected cost",
    ),
)
