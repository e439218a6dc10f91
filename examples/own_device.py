"""A device of one's own: a roofline, whose layers take the longer of computing and moving data.

In a package of your own declare an entry point instead of passing the object, so that
`apq-moo run --device roofline` finds it (see docs/extending.md):

    [project.entry-points."apq_moo.devices"]
    roofline = "my_plugins:Roofline"
"""

from dataclasses import asdict, dataclass

import numpy as np
from pymoo.optimize import minimize

from apq_moo.algorithms import ALGORITHMS
from apq_moo.files import digest_of, sha256
from apq_moo.hardware import Device, cost_table
from apq_moo.predictors.metrics import kendall_tau
from apq_moo.problems import APQProblem


@dataclass(frozen=True)
class Roofline(Device):
    """Costs by two rates and two prices; operands of up to 8 bits."""

    name = "roofline"
    gmacs_per_s: float = 64.0  # at 8 bits; half the bits of an operand double it
    gbytes_per_s: float = 1.0
    pj_per_mac: float = 0.4
    pj_per_byte: float = 20.0

    @property
    def digest(self):
        """Compiled tables are kept on disk under this, so it covers all that costs depend on."""
        return digest_of([asdict(self), sha256(__file__)])

    def layer_costs(self, layers):
        """Latency in ms and energy in mJ; inf where the device cannot run a layer."""
        sizes = np.array([_sizes(layer) for layer in layers]).reshape(-1, 3)
        macs, moved, widest = sizes.T
        runs = widest <= 8
        latency = np.maximum(macs / self.gmacs_per_s, moved / self.gbytes_per_s) * 1e-6
        energy = (macs * self.pj_per_mac + moved * self.pj_per_byte) * 1e-9
        costs = {"latency": latency, "energy": energy}
        return {name: np.where(runs, values, np.inf) for name, values in costs.items()}


def _sizes(layer):
    bits = layer.c_in * layer.size**2 * layer.a_bits + layer.weights * layer.w_bits
    return layer.macs * layer.w_bits * layer.a_bits / 64, bits / 8, max(layer.w_bits, layer.a_bits)


if __name__ == "__main__":
    problem = APQProblem("digits", ("acc", "energy"), {"latency": 0.02}, device=Roofline())
    drawn = problem.region.sample(2000, np.random.default_rng(0))
    ours, published = (cost_table(problem.space, "latency", d) for d in (Roofline(), "bitfusion"))
    print(f"latency: Kendall tau to bitfusion {kendall_tau(ours(drawn), published(drawn)):.3f}")

    algorithm = ALGORITHMS.get("nsga2").factory(problem, pop_size=100)
    result = minimize(problem, algorithm, ("n_eval", 4000), seed=0)
    cheapest = problem.evaluate_raw(drawn)["energy"].min()
    print(f"cheapest of the front {result.F[:, 1].min():.2e} mJ, of random draws {cheapest:.2e} mJ")
